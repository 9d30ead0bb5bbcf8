//! What the fuzz targets of whole machines call: bytes are read as a play of inputs, and each
//! entry panics when a promise is broken.

mod core_ops;
mod group;
mod node;
mod presence;
mod recover;
mod two_nodes;

pub(crate) use core_ops::core_ops;
pub(crate) use group::chain_merge;
pub(crate) use presence::presence_merge;
pub(crate) use recover::store_recover;
pub(crate) use two_nodes::two_nodes;

/// The bytes of a fuzzer as small choices; zeros when they are used up.
pub(crate) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *byte
    }

    /// One of `items`; `None` of nothing.
    pub(crate) fn pick<'t, T>(&mut self, items: &'t [T]) -> Option<&'t T> {
        let at = usize::from(self.byte()) << 8 | usize::from(self.byte());
        items.get(at.checked_rem(items.len())?)
    }

    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Up to 32 bytes.
    pub(crate) fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte() % 33).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    /// `bytes` with up to four of them changed, or cut short.
    pub(crate) fn hurt(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for _ in 0..=self.byte() % 4 {
            let at = usize::from(self.byte()) << 8 | usize::from(self.byte());
            let value = self.byte();
            if let Some(at) = at.checked_rem(bytes.len()) {
                bytes[at] = value;
            }
        }
        if self.byte().is_multiple_of(8) {
            bytes.truncate(usize::from(self.byte()));
        }
        bytes
    }
}
