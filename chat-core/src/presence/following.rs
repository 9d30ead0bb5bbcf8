//! Whom we follow, and for whom: the application, an open session, a group. Each ends its own.

use super::Status;
use super::machine::PresenceMachine;
use super::person::Person;
use crate::effect::Table;
use crate::id::UserId;
use crate::probe::planted;
use crate::time::Now;

impl PresenceMachine {
    /// Follow `user` for the application (the endpoint subscribes to its presence channel). Stored,
    /// so that a restart knows the last status and [`Self::watched`] names everybody to follow.
    pub fn watch(&mut self, user: &UserId, now: Now) {
        self.follow(user, |person| &mut person.asked, now);
    }

    /// Follow `user` while a session with it is open, besides what the application asked for.
    pub fn meet(&mut self, user: &UserId, now: Now) {
        self.follow(user, |person| &mut person.met, now);
    }

    /// Follow `user`, who is in a group with us, until [`Self::unshare`].
    pub fn share(&mut self, user: &UserId, now: Now) {
        self.follow(user, |person| &mut person.shared, now);
    }

    /// No group needs `user` to be followed any more.
    pub fn unshare(&mut self, user: &UserId, now: Now) {
        self.unfollow(user, |person| &mut person.shared, now);
    }

    fn follow(&mut self, user: &UserId, by: impl Fn(&mut Person) -> &mut bool, now: Now) {
        if let Some(person) = self.people.get_mut(user) {
            let was_watched = person.is_watched();
            if core::mem::replace(by(person), true) {
                return;
            }
            if !was_watched {
                self.strangers.remove(&(person.ranked, user.clone()));
            }
        } else {
            self.make_room(now);
            let mut person = self.unheard(Status::Unknown, now);
            *by(&mut person) = true;
            self.people.insert(user.clone(), person);
            self.load += 1;
            self.count_heads(now);
        }
        self.store(user);
        self.file(user, now);
    }

    /// The application follows `user` no longer. Who has a session open with us stays.
    pub fn unwatch(&mut self, user: &UserId, now: Now) {
        self.unfollow(user, |person| &mut person.asked, now);
    }

    /// The session with `user` is over. Whom the application follows stays.
    pub fn part(&mut self, user: &UserId, now: Now) {
        self.unfollow(user, |person| &mut person.met, now);
    }

    fn unfollow(&mut self, user: &UserId, by: impl Fn(&mut Person) -> &mut bool, now: Now) {
        let Some(person) = self.people.get_mut(user) else {
            return;
        };
        let was_kept = person.is_kept();
        if !core::mem::replace(by(person), false) {
            return;
        }
        if was_kept && !person.is_kept() && person.is_watched() {
            person.stored = None;
            self.effects
                .delete(Table::Contacts, user.as_str().as_bytes().to_vec());
            return;
        }
        if person.is_watched() && !planted("presence-close-ends-watch") {
            self.store(user);
            return;
        }
        self.forget(user, now);
        if was_kept {
            self.effects
                .delete(Table::Contacts, user.as_str().as_bytes().to_vec());
        }
    }

    /// True while somebody follows `user`.
    pub fn is_watched(&self, user: &UserId) -> bool {
        self.people.get(user).is_some_and(Person::is_watched)
    }

    /// Everybody that is watched.
    pub fn watched(&self) -> impl Iterator<Item = &UserId> {
        let watched = self.people.iter().filter(|(_, person)| person.is_watched());
        watched.map(|(user, _)| user)
    }
}
