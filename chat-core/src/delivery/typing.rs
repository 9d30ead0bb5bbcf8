//! Who types: said at most once in three seconds, shown for as long as [`DeliveryConfig::typing_ttl`]
//! says, never stored (rules Q4, Q6).

use super::Delivery;
use super::state::{ConvAt, Key};
use super::types::DeliveryEvent;
#[cfg(doc)]
use crate::config::DeliveryConfig;
use crate::effect::Outgoing;
use crate::id::{ConvId, UserId};
use crate::identity::Sender;
use crate::time::Now;
use crate::wire::{self, delivery as frames};

/// Who may be typing at once, all conversations; beyond it typing is not shown.
const MAX_TYPING: usize = 1_024;
/// At most one "I type" per this time.
const TYPING_EVERY: core::time::Duration = core::time::Duration::from_secs(3);

impl Delivery {
    /// The user types, or stopped. Told at most once in three seconds, and only while connected.
    pub fn set_typing(&mut self, conv: ConvId, active: bool, now: Now) {
        if !self.up {
            return;
        }
        let Some(it) = self.convs.get_mut(&conv) else {
            return;
        };
        let Some(route) = &it.route else { return };
        let tell = match it.typing {
            None => active,
            Some(again) => !active || now.mono >= again,
        };
        if !tell {
            return;
        }
        it.typing = active.then(|| now.mono + TYPING_EVERY);
        let typing = wire::delivery::Typing {
            conv: conv.0,
            active,
        };
        let frame = Outgoing::ephemeral(route.channel.clone(), typing);
        self.effects.send(frame.with_ttl(self.config.typing_ttl));
    }

    /// Somebody types.
    pub fn handle_typing(&mut self, from: &Sender, typing: &frames::Typing, now: Now) {
        let open = self.convs.slot(&ConvId(typing.conv));
        let Some(conv) = open.filter(|conv| self.convs[*conv].route.is_some()) else {
            return;
        };
        if from.device == self.me.device {
            return;
        }
        if !typing.active {
            self.on_typing_over(conv, &from.user);
            return;
        }
        let who = (conv, from.user.clone());
        let known = self.typing.contains(&who);
        if !known && self.typing.len() >= MAX_TYPING {
            return;
        }
        let key = Key::Typing(conv, from.user.clone());
        self.timers.set(key, now.mono + self.config.typing_ttl);
        if !known {
            self.effects.emit(DeliveryEvent::Typing {
                conv: self.convs[conv].id,
                user: from.user.clone(),
                active: true,
            });
            self.typing.insert(who);
        }
    }

    pub(super) fn on_typing_over(&mut self, conv: ConvAt, user: &UserId) {
        if self.typing.is_empty() {
            return;
        }
        let who = (conv, user.clone());
        if self.typing.remove(&who) {
            self.timers.remove(&Key::Typing(conv, who.1.clone()));
            self.effects.emit(DeliveryEvent::Typing {
                conv: self.convs[conv].id,
                user: who.1,
                active: false,
            });
        }
    }
}
