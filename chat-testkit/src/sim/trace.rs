//! One readable line per happening.

use chat_core::Event;
use chat_core::channel::Channel;
use chat_core::wire::{self, Body};

/// A frame: its kind, its channel, its size.
pub(super) fn frame(channel: &Channel, bytes: &[u8]) -> String {
    let kind = wire::peek_kind(bytes).unwrap_or(0);
    let name = Body::KINDS
        .iter()
        .find(|(code, _)| *code == kind)
        .map_or("?", |(_, name)| name);
    let (place, id) = channel.path();
    let id = id.get(..8).unwrap_or(&id);
    format!("{name} on {place}/{id} ({} B)", bytes.len())
}

/// An event, cut to a line.
pub(super) fn event(event: &Event) -> String {
    let mut text = format!("{event:?}");
    if text.len() > 300 {
        let cut = (0..=300)
            .rev()
            .find(|at| text.is_char_boundary(*at))
            .unwrap_or(0);
        text.truncate(cut);
        text.push('…');
    }
    text
}
