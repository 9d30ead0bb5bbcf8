//! Lobbies: what is listed is what its leader last showed; nobody else writes a card, an older
//! card never replaces a newer one, and who leads no more is not listed.

use std::collections::BTreeMap;

use chat_core::event::Event;
use chat_core::id::{GroupId, LobbyName, UserId};
use chat_core::lobby::{GroupListing, LobbyEvent};

use super::{Act, At, Marks, Seen, Verdict, View, Violation};

/// See the module.
#[derive(Debug)]
pub struct Lobby {
    name: LobbyName,
    /// The leader of each group, and the names that it had, in their order.
    groups: BTreeMap<GroupId, (UserId, Vec<String>)>,
    /// The latest name that each process was shown since the group is listed.
    shown: BTreeMap<(usize, GroupId), usize>,
    marks: Marks,
}

impl Lobby {
    /// For the lobby that everybody enters.
    pub fn new(name: LobbyName) -> Self {
        Self {
            name,
            groups: BTreeMap::new(),
            shown: BTreeMap::new(),
            marks: Marks::default(),
        }
    }

    /// How often each mark was reached.
    pub fn marks(&self) -> Vec<(&'static str, u64)> {
        self.marks.list()
    }

    /// Judges one observation.
    ///
    /// # Errors
    /// "Lobby card": a listing that its leader did not make, or made before the one shown.
    pub fn see(&mut self, at: At<'_>, seen: Seen<'_>) -> Verdict {
        match seen {
            Seen::Started | Seen::Died => self.shown.retain(|(node, _), _| *node != at.node),
            Seen::Act(Act::Created { group }) => {
                let names = vec!["ops".to_owned()];
                self.groups.insert(*group, (at.user.clone(), names));
            }
            Seen::Act(Act::Renamed { group, name }) => {
                if let Some((_, names)) = self.groups.get_mut(group) {
                    names.push(name.clone());
                }
            }
            Seen::Event(Event::Lobby(LobbyEvent::GroupListed { listing, .. })) => {
                return self.listed(at, listing);
            }
            Seen::Event(Event::Lobby(LobbyEvent::GroupUnlisted { group, .. })) => {
                self.marks.hit("oracle-unlisted");
                self.shown.remove(&(at.node, *group));
            }
            _ => {}
        }
        Ok(())
    }

    fn listed(&mut self, at: At<'_>, listing: &GroupListing) -> Verdict {
        self.marks.hit("oracle-listed");
        let wrong = |what: &str| {
            let text = format!("node {} is shown {listing:?}: {what}", at.node);
            Err(Violation::new("lobby card", text))
        };
        let Some((leader, names)) = self.groups.get(&listing.group) else {
            return wrong("nobody made that group");
        };
        if *leader != listing.leader || listing.members != 1 {
            return wrong("its leader says otherwise");
        }
        let Some(place) = names
            .iter()
            .rposition(|name| *name == listing.name.as_str())
        else {
            return wrong("it never had that name");
        };
        let latest = self.shown.entry((at.node, listing.group)).or_default();
        if place < *latest {
            return wrong("it had a newer name already");
        }
        *latest = place;
        Ok(())
    }

    /// At the end everybody lists the groups of the living under their names, and no others.
    ///
    /// # Errors
    /// The first list that is wrong.
    pub fn settled(&self, nodes: &[View<'_>]) -> Verdict {
        let mut expected = Vec::new();
        for node in nodes.iter().filter(|node| !node.killed) {
            let Some(endpoint) = node.endpoint else {
                continue;
            };
            let led = self.groups.iter().filter(|(_, of)| of.0 == *node.at.user);
            for (group, _) in led {
                let Some(view) = endpoint.group(*group) else {
                    continue;
                };
                expected.push((*group, view.name));
            }
        }
        for node in nodes.iter().filter(|node| !node.killed) {
            let Some(endpoint) = node.endpoint else {
                continue;
            };
            let listings = endpoint.listings(&self.name);
            let listed: Vec<_> = listings.into_iter().map(|l| (l.group, l.name)).collect();
            // A leader does not list its own.
            let own =
                |group: &GroupId| self.groups.get(group).map(|of| &of.0) == Some(node.at.user);
            let theirs = |list: &[(GroupId, _)]| -> Vec<_> {
                list.iter()
                    .filter(|(group, _)| !own(group))
                    .cloned()
                    .collect()
            };
            if theirs(&listed) != theirs(&expected) {
                let text = format!(
                    "node {} lists {listed:?}, the living lead {expected:?}",
                    node.at.node
                );
                return Err(Violation::new("lobby", text));
            }
        }
        Ok(())
    }
}
