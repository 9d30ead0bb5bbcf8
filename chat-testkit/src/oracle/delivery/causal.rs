//! ID9: nobody is told a message before what its author had been told, unless it is flagged.

use chat_core::id::{ConvId, MessageId};

use super::super::{At, Verdict, Violation};
use super::{Delivery, Got, covers};

/// A gap names the message, or only counts what was lost of epochs before it.
fn is_within(gap: &(MessageId, u64), id: &MessageId) -> bool {
    let (first, of) = (gap.0.stream, id.stream);
    let same = (first.device, first.conv) == (of.device, of.conv);
    covers(gap, id) || (same && first.epoch < of.epoch)
}

impl Delivery {
    /// What `node` was told in `conv`, the latest of each device.
    pub(super) fn causes(&self, node: usize, conv: ConvId) -> Vec<MessageId> {
        let told = self.places[node].inbox.last_of.iter();
        told.filter(|((_, of), _)| *of == conv)
            .map(|(_, id)| *id)
            .collect()
    }

    /// A message was told at a node.
    pub(super) fn in_causal_order(&mut self, at: At<'_>, received: &Got) -> Verdict {
        let id = received.id;
        let stream = (id.stream.device, id.stream.conv);
        let Some(message) = self.messages.get(&id) else {
            return Ok(());
        };
        if received.causal_gap {
            self.marks.hit("oracle-causal-gap");
            self.places[at.node].inbox.loose.insert(stream);
            return Ok(());
        }
        let place = &self.places[at.node];
        let inbox = &place.inbox;
        // What named an earlier cause was itself told out of order, or is lost: a gap that a crash
        // kept from being told is on the disk.
        let disk = self.disks.get(&at.device);
        let names_lost = inbox.loose.contains(&stream)
            || disk.is_some_and(|disk| disk.misses_of(&id))
            || inbox
                .gaps
                .iter()
                .any(|(first, _)| (first.stream.device, first.stream.conv) == stream);
        if names_lost || !received.content.is_visible() {
            return Ok(());
        }
        for cause in &message.after {
            let of = (cause.stream.device, cause.stream.conv);
            let told = inbox.last_of.get(&of).is_some_and(|last| last >= cause)
                || inbox.gaps.iter().any(|gap| is_within(gap, cause));
            let Some(earlier) = self.messages.get(cause).filter(|_| !told) else {
                continue;
            };
            let meant = earlier.to.iter().any(|(_, device)| *device == at.device);
            let moved = |user| self.removed.contains_key(user);
            let author = &earlier.user;
            let excused = !meant
                || earlier.fate.is_end()
                || earlier.forgotten
                || moved(author)
                || moved(at.user);
            if !excused {
                let text = format!(
                    "node {} is told {id:?} before {cause:?}, which its author had read",
                    at.node
                );
                return Err(Violation::new("ID9", text));
            }
        }
        Ok(())
    }
}
