//! Who may write to the group and who gets what we write (G9, G10, G16, G20).

use super::Groups;
use super::types::{Audience, Membership, Verdict};
use crate::delivery::Standing;
use crate::id::GroupId;
use crate::identity::Sender;
use crate::probe::{mark, planted};
use crate::time::Now;

impl Groups {
    /// Who gets messages now; `None` when we are no member or have said that we leave (G12).
    pub fn audience(&self, group: GroupId) -> Option<Audience> {
        let group = self.groups.get(&group)?;
        let writes = matches!(
            group.standing(&self.me)?,
            Membership::Member | Membership::Leader
        );
        let chain = group.chain.as_ref().filter(|_| writes)?;
        let mut members = group.visible();
        members.retain(|member| member.device != self.me.device);
        let mut left = chain.roster.departures();
        let unseen = group.unseen().into_iter();
        left.extend(unseen.map(|member| (member.device, chain.index() + 1)));
        Some(Audience {
            left,
            members,
            index: chain.index(),
            since: chain.roster.seats.get(&self.me.device)?.seniority.index,
        })
    }

    /// True when the device is in the roster now.
    pub fn is_member(&self, group: GroupId, from: &Sender) -> bool {
        let Some(held) = self
            .groups
            .get(&group)
            .filter(|held| held.sees(from.device))
        else {
            return false;
        };
        let seat = held
            .chain
            .as_ref()
            .and_then(|c| c.roster.seats.get(&from.device));
        seat.is_some_and(|seat| seat.user == from.user)
    }

    /// May `from` write to `group`, citing log index `roster`? A newer index than ours makes us
    /// fetch the log.
    ///
    /// G9, G10: what counts is whether this device was in at the index that it cites; what a
    /// former member wrote before it went is taken and marked. G20: an index is taken however old,
    /// because without encryption there is nothing to seal again. An index beyond a log that the
    /// leader, after it was cited, says is whole belongs to an abandoned branch, and so does one at
    /// which a member was not in: then only who is in now counts.
    pub fn judge(&mut self, group: GroupId, from: &Sender, roster: u64, now: Now) -> Verdict {
        let Some(held) = self.groups.get(&group) else {
            return Verdict::Stranger;
        };
        let asking = held.record.asking.is_some();
        let Some(chain) = held.belongs(&self.me) else {
            return if asking {
                Verdict::NotYet
            } else {
                Verdict::Stranger
            };
        };
        let seat = chain.roster.seats.get(&from.device);
        let seat = seat.filter(|seat| seat.user == from.user);
        let shown = seat.is_some() && held.sees(from.device);
        if roster > chain.index() {
            let leads = chain.roster.leader.device == self.me.device;
            let whole = leads || held.current && roster <= held.cleared;
            if whole && shown {
                mark("group-cites-abandoned");
                return Verdict::Take(Standing::Current);
            }
            self.want(group, &from.user, now);
            if let Some(held) = self.groups.get_mut(&group) {
                held.cited = held.cited.max(roster);
            }
            return Verdict::NotYet;
        }
        if seat.is_some_and(|seat| seat.seniority.index <= roster) {
            return if shown {
                Verdict::Take(Standing::Current)
            } else {
                mark("group-hidden-writes");
                Verdict::Stranger
            };
        }
        let mut past = chain.roster.past(from.device);
        let was_in =
            past.any(|gone| gone.user == from.user && gone.since <= roster && roster < gone.until);
        if was_in || planted("group-former-writes-on") {
            mark("group-former-member");
            return Verdict::Take(Standing::Former);
        }
        // It was let in on a branch that lost, and again on this one; what it cites was before.
        if shown {
            mark("group-cites-before-fork");
            return Verdict::Take(Standing::Current);
        }
        Verdict::Stranger
    }
}
