//! Scenarios that are meant to fail.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::panic::{catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    /// Scenarios that fail on this thread are meant to.
    static HUSHED: Cell<bool> = const { Cell::new(false) };
}

/// Which scenarios fail; their panics print nothing.
pub(crate) fn failing(table: Vec<(&'static str, fn())>) -> BTreeSet<&'static str> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let loud = take_hook();
        set_hook(Box::new(move |panic| {
            if !HUSHED.get() {
                loud(panic);
            }
        }));
    });
    HUSHED.set(true);
    let failed = table
        .into_iter()
        .filter(|(_, scenario)| catch_unwind(scenario).is_err())
        .map(|(name, _)| name)
        .collect();
    HUSHED.set(false);
    failed
}
