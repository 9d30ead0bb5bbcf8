//! Hooks for a simulator: *sometimes* marks, which prove that a run was not vacuous, and planted
//! bugs, which prove that its checkers bite. Without the feature `probe` they compile to nothing;
//! with it, and nothing planted, behaviour is the same.

#[cfg(feature = "probe")]
mod on {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeMap;

    thread_local! {
        static MARKS: RefCell<BTreeMap<&'static str, u64>> = const { RefCell::new(BTreeMap::new()) };
        static PLANTED: Cell<Option<&'static str>> = const { Cell::new(None) };
    }

    pub(crate) fn mark(name: &'static str) {
        MARKS.with_borrow_mut(|marks| *marks.entry(name).or_default() += 1);
    }

    /// True when the named one-line bug is switched on.
    pub fn planted(name: &'static str) -> bool {
        PLANTED.get() == Some(name)
    }

    /// Takes this thread's marks and how often each was hit.
    pub fn take_marks() -> BTreeMap<&'static str, u64> {
        MARKS.take()
    }

    /// Plants a bug on this thread, or none.
    pub fn plant(name: Option<&'static str>) {
        PLANTED.set(name);
    }
}

#[cfg(feature = "probe")]
pub(crate) use on::mark;
#[cfg(feature = "probe")]
pub use on::{plant, planted, take_marks};

/// Says that something worth reaching was reached.
#[cfg(not(feature = "probe"))]
#[inline(always)]
pub(crate) const fn mark(_name: &'static str) {}

/// True when the named one-line bug is switched on.
#[cfg(not(feature = "probe"))]
#[inline(always)]
pub(crate) const fn planted(_name: &'static str) -> bool {
    false
}
