//! Rows of contacts: whom a restart follows again, and how they last looked.

use super::Status;
use super::machine::PresenceMachine;
use super::person::{Person, UNHEARD};
use super::record::{Device, status};
use crate::effect::{RestoreError, Row, Table};
use crate::id::UserId;
use crate::time::{Now, UnixMillis};

const ROW_VERSION: u8 = 1;
/// In a row: who follows the user.
const ASKED: u8 = 1;
const MET: u8 = 2;

impl PresenceMachine {
    /// Takes back a row of [`Table::Contacts`]: the user is watched again.
    ///
    /// # Errors
    /// [`RestoreError`] when the row is damaged.
    pub fn restore(&mut self, row: &Row, now: Now) -> Result<(), RestoreError> {
        let damaged = || RestoreError::of(row);
        let name = core::str::from_utf8(&row.key).map_err(|_| damaged())?;
        let user = UserId::new(name).map_err(|_| damaged())?;
        let Some(([ROW_VERSION, by, code], seen)) = row.value.split_first_chunk::<3>() else {
            return Err(damaged());
        };
        if !(1..=ASKED | MET).contains(by) {
            return Err(damaged());
        }
        let last = status(*code).ok_or_else(damaged)?;
        let seen = u64::from_le_bytes(seen.try_into().map_err(|_| damaged())?);
        let mut person = self.unheard(last, now);
        (person.asked, person.met) = (by & ASKED != 0, by & MET != 0);
        person.last_seen = (seen != 0).then_some(UnixMillis(seen));
        person.here = (last != Status::Unknown).then_some(last.is_here());
        person.stored = Some((*code, seen));
        self.forget(&user, now);
        self.load += 1;
        self.people.insert(user, person);
        self.count_heads(now);
        Ok(())
    }

    pub(super) fn unheard(&self, last: Status, now: Now) -> Person {
        let mut person = Person::new(now.mono);
        let device = Device::unheard(last, self.own.ttl(), now.mono);
        person.devices.push((UNHEARD, device));
        person
    }

    pub(super) fn store(&mut self, user: &UserId) {
        let person = self.people.get_mut(user);
        if let Some(person) = person.filter(|person| person.is_kept()) {
            let (code, seen) = person.row();
            person.stored = Some((code, seen));
            let by = u8::from(person.asked) * ASKED + u8::from(person.met) * MET;
            let mut value = vec![ROW_VERSION, by, code];
            value.extend_from_slice(&seen.to_le_bytes());
            self.effects
                .put(Table::Contacts, user.as_str().as_bytes().to_vec(), value);
        }
    }

    pub(super) fn flush(&mut self) {
        self.flush_at = None;
        for user in core::mem::take(&mut self.dirty) {
            self.store(&user);
        }
    }
}
