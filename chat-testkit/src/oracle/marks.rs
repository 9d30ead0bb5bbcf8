//! What a judge saw: a run that reached none of it proved nothing.

use std::collections::BTreeMap;

/// How often each mark was reached.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks(BTreeMap<&'static str, u64>);

impl Marks {
    /// One more.
    pub(super) fn hit(&mut self, name: &'static str) {
        self.add(name, 1);
    }

    /// So many more.
    pub(super) fn add(&mut self, name: &'static str, count: u64) {
        *self.0.entry(name).or_default() += count;
    }

    /// All of them, by name.
    pub(super) fn list(&self) -> Vec<(&'static str, u64)> {
        self.0.iter().map(|(name, count)| (*name, *count)).collect()
    }
}
