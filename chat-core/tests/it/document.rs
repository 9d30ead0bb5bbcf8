//! The protocol document names what the code knows.

use chat_core::wire::{Body, MAX_CONTROL_FRAME, MAX_FRAME};

pub(crate) const DOCUMENT: &str = include_str!("../../../docs/protocol.md");

#[test]
fn every_kind_is_in_the_protocol_document() {
    for (code, name) in Body::KINDS {
        let row = format!("| `{code:#04x}` | `{name}` |");
        assert!(DOCUMENT.contains(&row), "docs/protocol.md lacks {row}");
    }
    let rows = DOCUMENT.lines().filter(|l| l.starts_with("| `0x")).count();
    assert_eq!(rows, Body::KINDS.len(), "it names a kind that is gone");
}

#[test]
fn the_limits_are_in_the_protocol_document() {
    for limit in [MAX_FRAME, MAX_CONTROL_FRAME] {
        let text = format!("{} KiB", limit / 1024);
        assert!(DOCUMENT.contains(&text), "docs/protocol.md lacks {text}");
    }
}
