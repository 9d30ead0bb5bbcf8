use proptest::prelude::*;

use super::*;
use crate::channel::{Channel, Class};
use crate::effect::Effect;
use crate::id::DeviceId;
use crate::identity::Sender;
use crate::rng::Rng;
use crate::time::{Now, Timestamp, UnixMillis};
use crate::wire::presence::{GroupCard, Seek};
use crate::wire::{Body, BoundedStr};

const ASK: Seek = Seek {
    people: true,
    groups: true,
};

fn at(millis: u64) -> Now {
    Now {
        mono: Timestamp::from_millis(millis),
        wall: UnixMillis(millis),
    }
}

fn plaza() -> LobbyName {
    LobbyName::new("plaza").unwrap()
}

fn sender(name: &str) -> Sender {
    Sender {
        user: UserId::new(name).unwrap(),
        device: DeviceId([1; 32]),
    }
}

fn listing(group: u8, leader: &str, members: u32) -> GroupListing {
    let name = GroupName::new(&format!("group {group}")).unwrap();
    GroupListing::new(
        GroupId([group; 32]),
        name,
        UserId::new(leader).unwrap(),
        members,
    )
}

fn card(group: u8, leader: &str, members: u32, index: u64) -> GroupCard {
    GroupCard {
        group: [group; 32],
        name: BoundedStr::truncated(&format!("group {group}")),
        leader: BoundedStr::truncated(leader),
        members,
        index,
        withdrawn: false,
    }
}

fn withdrawal(group: u8, leader: &str, index: u64) -> GroupCard {
    GroupCard {
        withdrawn: true,
        ..card(group, leader, 0, index)
    }
}

fn lobbies() -> Lobbies {
    Lobbies::new(Rng::from_seed([4; 32]))
}

/// In the plaza, connected, everything drained.
fn inside() -> Lobbies {
    let mut lobbies = lobbies();
    lobbies.handle_up(at(0));
    lobbies.enter(plaza(), at(0));
    drain(&mut lobbies);
    lobbies
}

fn drain(lobbies: &mut Lobbies) -> Vec<Effect<LobbyEvent>> {
    core::iter::from_fn(|| lobbies.effects().pop()).collect()
}

fn sent(lobbies: &mut Lobbies) -> Vec<Body> {
    let frames = drain(lobbies)
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Send(frame) => {
                assert_eq!(frame.channel, Channel::Lobby(plaza()));
                assert_eq!(frame.class, Class::Ephemeral);
                Some(frame.body)
            }
            _ => None,
        });
    frames.collect()
}

fn told(lobbies: &mut Lobbies) -> Vec<LobbyEvent> {
    let events = drain(lobbies)
        .into_iter()
        .filter_map(|effect| match effect {
            Effect::Emit { event, .. } => Some(event),
            _ => None,
        });
    events.collect()
}

fn listed(listing: GroupListing) -> LobbyEvent {
    LobbyEvent::GroupListed {
        lobby: plaza(),
        listing,
    }
}

fn unlisted(group: u8) -> LobbyEvent {
    LobbyEvent::GroupUnlisted {
        lobby: plaza(),
        group: GroupId([group; 32]),
    }
}

fn run(lobbies: &mut Lobbies, until: Now) {
    while let Some(due) = lobbies.poll_timeout().filter(|due| *due <= until.mono) {
        let now = at(due.as_micros().div_ceil(1_000));
        lobbies.handle_timeout(now);
        assert!(lobbies.poll_timeout().is_none_or(|next| next > now.mono));
    }
}

#[test]
fn entering_asks_at_once_or_with_the_next_connection() {
    let mut lobbies = lobbies();
    lobbies.enter(plaza(), at(0));
    assert!(sent(&mut lobbies).is_empty());
    lobbies.handle_up(at(1));
    assert_eq!(sent(&mut lobbies), [Body::Seek(ASK)]);
    lobbies.handle_down(at(2));
    lobbies.handle_up(at(3));
    assert_eq!(sent(&mut lobbies), [Body::Seek(ASK)]);
    // Entering twice asks nothing new.
    lobbies.enter(plaza(), at(4));
    assert!(sent(&mut lobbies).is_empty());
    assert_eq!(
        lobbies.channels().collect::<Vec<_>>(),
        [Channel::Lobby(plaza())]
    );
    let mut up = inside();
    up.enter(LobbyName::new("plaza").unwrap(), at(5));
    assert!(sent(&mut up).is_empty());
}

#[test]
fn many_questions_get_one_answer_after_a_random_delay() {
    let mut lobbies = inside();
    lobbies.show(listing(1, "me", 3), 7, at(0));
    assert_eq!(sent(&mut lobbies), [Body::GroupCard(card(1, "me", 3, 7))]);
    for n in 0..400 {
        lobbies.handle_seek(&plaza(), &ASK, at(10_000 + n));
    }
    assert!(sent(&mut lobbies).is_empty());
    run(&mut lobbies, at(10_500));
    assert_eq!(sent(&mut lobbies).len(), 1);
    // Asked without end, it answers once per debounce.
    for n in 0..20_000 {
        lobbies.handle_seek(&plaza(), &ASK, at(20_000 + n));
        lobbies.handle_timeout(at(20_000 + n));
    }
    assert!((1..=11).contains(&sent(&mut lobbies).len()));
    run(&mut lobbies, at(45_000));
    drain(&mut lobbies);
    // Who asks for people only gets no cards.
    let people = Seek {
        people: true,
        groups: false,
    };
    lobbies.handle_seek(&plaza(), &people, at(50_000));
    run(&mut lobbies, at(51_000));
    assert!(sent(&mut lobbies).is_empty());
}

#[test]
fn cards_are_renewed_and_changes_debounced() {
    let mut lobbies = inside();
    for index in 1..=10 {
        lobbies.show(
            listing(1, "me", 3 + index),
            u64::from(index),
            at(u64::from(index)),
        );
    }
    // An older card changes nothing.
    lobbies.show(listing(1, "me", 99), 5, at(20));
    run(&mut lobbies, at(10_000));
    let cards = sent(&mut lobbies);
    assert_eq!(
        cards,
        [
            Body::GroupCard(card(1, "me", 4, 1)),
            Body::GroupCard(card(1, "me", 13, 10))
        ]
    );
    run(&mut lobbies, at(610_000));
    assert_eq!(sent(&mut lobbies).len(), 5);
    lobbies.hide(GroupId([1; 32]), true, at(610_001));
    assert!(matches!(
        &sent(&mut lobbies)[..],
        [Body::GroupCard(card)] if card.withdrawn && card.index == 10
    ));
    run(&mut lobbies, at(2_000_000));
    assert!(sent(&mut lobbies).is_empty());
}

#[test]
fn a_card_counts_only_from_the_leader_it_names() {
    let mut lobbies = inside();
    lobbies.handle_card(&plaza(), &sender("mallory"), &card(1, "ann", 3, 9), at(0));
    let mut nameless = card(2, "ann", 3, 1);
    nameless.name = BoundedStr::default();
    lobbies.handle_card(&plaza(), &sender("ann"), &nameless, at(0));
    let mut leaderless = card(2, "", 3, 1);
    leaderless.leader = BoundedStr::default();
    lobbies.handle_card(&plaza(), &sender("ann"), &leaderless, at(0));
    let elsewhere = LobbyName::new("elsewhere").unwrap();
    lobbies.handle_card(&elsewhere, &sender("ann"), &card(1, "ann", 3, 9), at(0));
    assert!(told(&mut lobbies).is_empty());
    assert!(lobbies.groups(&plaza()).is_empty());
}

#[test]
fn the_greater_index_wins_and_only_visible_changes_are_told() {
    let mut lobbies = inside();
    let ann = sender("ann");
    let give = |lobbies: &mut Lobbies, card: GroupCard| {
        lobbies.handle_card(&plaza(), &ann, &card, at(0));
        told(lobbies)
    };
    assert_eq!(
        give(&mut lobbies, card(1, "ann", 3, 5)),
        [listed(listing(1, "ann", 3))]
    );
    assert_eq!(give(&mut lobbies, card(1, "ann", 3, 5)), []);
    assert_eq!(give(&mut lobbies, card(1, "ann", 9, 4)), []);
    assert_eq!(give(&mut lobbies, card(1, "ann", 3, 6)), []);
    assert_eq!(
        give(&mut lobbies, card(1, "ann", 4, 7)),
        [listed(listing(1, "ann", 4))]
    );
    assert_eq!(give(&mut lobbies, withdrawal(1, "ann", 7)), [unlisted(1)]);
    // A late copy does not bring it back, a later card does.
    assert_eq!(give(&mut lobbies, card(1, "ann", 4, 7)), []);
    assert_eq!(give(&mut lobbies, withdrawal(1, "ann", 7)), []);
    assert_eq!(
        give(&mut lobbies, card(1, "ann", 4, 8)),
        [listed(listing(1, "ann", 4))]
    );
    assert_eq!(lobbies.groups(&plaza()), [listing(1, "ann", 4)]);
}

#[test]
fn a_card_that_is_not_renewed_lapses_but_not_while_we_are_cut_off() {
    let mut lobbies = inside();
    let ann = sender("ann");
    lobbies.handle_card(&plaza(), &ann, &card(1, "ann", 3, 5), at(0));
    lobbies.handle_card(&plaza(), &ann, &card(1, "ann", 3, 5), at(500_000));
    run(&mut lobbies, at(1_099_000));
    assert_eq!(lobbies.groups(&plaza()).len(), 1);
    lobbies.handle_down(at(1_099_000));
    assert_eq!(lobbies.poll_timeout(), None);
    lobbies.handle_timeout(at(9_000_000));
    assert_eq!(lobbies.groups(&plaza()).len(), 1);
    lobbies.handle_up(at(9_000_000));
    drain(&mut lobbies);
    run(&mut lobbies, at(9_599_999));
    assert_eq!(told(&mut lobbies), []);
    run(&mut lobbies, at(9_600_000));
    assert_eq!(told(&mut lobbies), [unlisted(1)]);
}

#[test]
fn leaving_unlists_what_was_shown() {
    let mut lobbies = inside();
    lobbies.handle_card(&plaza(), &sender("ann"), &card(1, "ann", 3, 5), at(0));
    lobbies.handle_card(&plaza(), &sender("ann"), &card(2, "ann", 3, 5), at(0));
    lobbies.handle_card(&plaza(), &sender("ann"), &withdrawal(2, "ann", 6), at(0));
    drain(&mut lobbies);
    lobbies.exit(&plaza(), at(1));
    assert_eq!(told(&mut lobbies), [unlisted(1)]);
    assert_eq!(lobbies.iter().count(), 0);
    assert_eq!(lobbies.poll_timeout(), None);
}

/// Card `n` of its own leader.
fn numbered(n: u32) -> (Sender, GroupCard) {
    let name = format!("leader {n}");
    let mut card = card(0, &name, 3, 1);
    card.group[..4].copy_from_slice(&n.to_be_bytes());
    (sender(&name), card)
}

#[test]
fn a_full_lobby_refuses_the_newest_unless_an_old_card_missed_its_renewal() {
    let mut lobbies = inside();
    for n in 0..2_000 {
        let (from, card) = numbered(n);
        lobbies.handle_card(&plaza(), &from, &card, at(u64::from(n)));
    }
    assert_eq!(lobbies.groups(&plaza()).len(), 1_024);
    // All but the first are renewed; it makes room.
    for n in 1..1_024 {
        let (from, card) = numbered(n);
        lobbies.handle_card(&plaza(), &from, &card, at(120_000));
    }
    drain(&mut lobbies);
    for n in [3_000, 3_001] {
        let (from, card) = numbered(n);
        lobbies.handle_card(&plaza(), &from, &card, at(260_000));
    }
    assert_eq!(lobbies.groups(&plaza()).len(), 1_024);
    let told = told(&mut lobbies);
    assert_eq!(told.len(), 2);
    assert_eq!(told[0], unlisted(0));
    assert!(matches!(&told[1], LobbyEvent::GroupListed { listing, .. }
        if listing.leader.as_str() == "leader 3000"));
}

#[test]
fn one_leader_cannot_fill_a_lobby() {
    let mut lobbies = inside();
    for n in 0..200 {
        lobbies.handle_card(&plaza(), &sender("ann"), &card(n, "ann", 3, 1), at(0));
    }
    assert_eq!(lobbies.groups(&plaza()).len(), 64);
    lobbies.handle_card(&plaza(), &sender("bob"), &card(250, "bob", 3, 1), at(0));
    assert_eq!(lobbies.groups(&plaza()).len(), 65);
}

proptest! {
    /// Any cards in any order: what is shown is the same, and events alone rebuild it.
    #[test]
    fn order_does_not_matter_and_events_tell_everything(
        cards in proptest::collection::vec((0u8..3, 0u64..5), 0..20),
        closed in proptest::collection::vec((0u8..3, 0u64..5), 0..4),
        seed in any::<u64>(),
    ) {
        // One index says one thing: members follow from it.
        let mut all: Vec<GroupCard> = cards
            .iter()
            .map(|(group, index)| card(*group, "ann", 10 + *index as u32, *index))
            .chain(closed.iter().map(|(group, index)| withdrawal(*group, "ann", *index)))
            .collect();
        let mut straight = inside();
        for card in &all {
            straight.handle_card(&plaza(), &sender("ann"), card, at(0));
        }
        let turn = if all.is_empty() { 0 } else { seed as usize % all.len() };
        all.rotate_left(turn);
        all.reverse();
        let mut shuffled = inside();
        for card in &all {
            shuffled.handle_card(&plaza(), &sender("ann"), card, at(0));
        }
        prop_assert_eq!(straight.groups(&plaza()), shuffled.groups(&plaza()));
        let mut rebuilt = std::collections::BTreeMap::new();
        for event in told(&mut shuffled) {
            match event {
                LobbyEvent::GroupListed { listing, .. } => {
                    rebuilt.insert(listing.group, listing);
                }
                LobbyEvent::GroupUnlisted { group, .. } => {
                    prop_assert!(rebuilt.remove(&group).is_some());
                }
            }
        }
        prop_assert_eq!(rebuilt.into_values().collect::<Vec<_>>(), shuffled.groups(&plaza()));
    }

    /// Any inputs: no panic, and time always moves on.
    #[test]
    fn any_history_keeps_time_moving(
        ops in proptest::collection::vec((0u8..10, 0u8..3, 0u64..200_000), 0..100),
    ) {
        let mut lobbies = lobbies();
        let mut millis = 0;
        for (op, n, wait) in ops {
            let now = at(millis);
            match op {
                0 => lobbies.enter(plaza(), now),
                1 => lobbies.exit(&plaza(), now),
                2 => lobbies.handle_up(now),
                3 => lobbies.handle_down(now),
                4 => lobbies.show(listing(n, "me", 1), wait, now),
                5 => lobbies.hide(GroupId([n; 32]), wait % 2 == 0, now),
                6 => lobbies.handle_seek(&plaza(), &ASK, now),
                7 => lobbies.handle_card(&plaza(), &sender("ann"), &card(n, "ann", 1, wait), now),
                _ => {
                    millis += wait;
                    lobbies.handle_timeout(at(millis));
                    prop_assert!(lobbies.poll_timeout().is_none_or(|due| due > at(millis).mono));
                }
            }
        }
    }
}

#[cfg(feature = "probe")]
#[test]
fn the_planted_bugs_bite() {
    use crate::probe::plant;

    for (bug, from, stale) in [
        ("lobby-card-from-anybody", "mallory", card(1, "ann", 9, 9)),
        ("lobby-old-card-wins", "ann", card(1, "ann", 9, 1)),
    ] {
        for planted in [None, Some(bug)] {
            plant(planted);
            let mut lobbies = inside();
            lobbies.handle_card(&plaza(), &sender("ann"), &card(1, "ann", 3, 5), at(0));
            lobbies.handle_card(&plaza(), &sender(from), &stale, at(1));
            let right = lobbies.groups(&plaza()) == [listing(1, "ann", 3)];
            assert_eq!(right, planted.is_none(), "{bug}");
        }
    }
    plant(None);
}
