//! Who of a group is here, and what it costs (P11).

use std::time::Duration;

use super::net::{Net, user};
use crate::Event;
use crate::channel::Channel;
use crate::config::Config;
use crate::group::GroupEvent;
use crate::id::{GroupId, GroupName};
use crate::presence::{Counts, PresenceEvent, Status};

const CROWD: usize = 8;

fn config() -> Config {
    let mut config = Config::lan();
    config.presence.crowd = CROWD;
    // Everybody in a group hears everybody join.
    config.budget.burst = 100_000;
    config
}

/// A group of so many, led by the first.
fn group(members: usize) -> (Net, GroupId) {
    let names: Vec<_> = (0..members).map(|n| format!("user{n:02}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let mut net = Net::with(&names, &config());
    let now = net.now;
    let name = GroupName::new("hall").unwrap();
    let group = net.nodes[0].endpoint.create_group(&name, now).unwrap();
    for joiner in 1..members {
        let (now, node) = (net.now, &mut net.nodes[joiner]);
        node.endpoint.join(group, "", now).unwrap();
        net.run(Duration::from_millis(100));
        let request = net.nodes[0]
            .events
            .iter()
            .rev()
            .find_map(|event| match event {
                Event::Group(GroupEvent::JoinRequested { request, .. }) => Some(request.request),
                _ => None,
            });
        let now = net.now;
        let leader = &mut net.nodes[0].endpoint;
        leader.approve(group, request.unwrap(), now).unwrap();
        net.run(Duration::from_millis(100));
    }
    net.run(Duration::from_secs(5));
    for node in &net.nodes {
        assert_eq!(node.endpoint.group(group).unwrap().roster.len(), members);
    }
    (net, group)
}

/// What `node` was told of the group since.
fn told(net: &mut Net, node: usize) -> Vec<(u32, Counts, Vec<String>)> {
    let events = std::mem::take(&mut net.nodes[node].events);
    let room = |event| match event {
        Event::Presence(PresenceEvent::Room {
            members,
            counts,
            sample,
            ..
        }) => {
            let named = sample.into_iter().map(|(user, _)| user.to_string());
            Some((members, counts, named.collect()))
        }
        _ => None,
    };
    events.into_iter().filter_map(room).collect()
}

fn follows(net: &Net, node: usize) -> usize {
    let channels = net.nodes[node].subscribed.iter();
    channels
        .filter(|channel| matches!(channel, Channel::Presence(_)))
        .count()
}

#[test]
fn p11_members_are_followed_one_by_one_only_by_who_wants_to_know() {
    let (mut net, group) = group(4);
    assert!((0..4).all(|node| follows(&net, node) == 0));
    assert_eq!(net.nodes[1].endpoint.room_presence(group), None);
    let now = net.now;
    net.nodes[1].endpoint.watch_group(group, now);
    net.run(Duration::from_secs(5));
    assert_eq!(follows(&net, 1), 3);
    let view = net.nodes[1].endpoint.room_presence(group).unwrap();
    assert_eq!((view.members, view.counts.here(), view.whole), (4, 4, true));
    assert_eq!(view.people.len(), 4);
    told(&mut net, 1);
    let now = net.now;
    net.nodes[2]
        .endpoint
        .set_presence(Status::Away, "lunch", None, now);
    net.run(Duration::from_secs(1));
    let news = told(&mut net, 1);
    let (members, counts, named) = news.last().unwrap();
    assert_eq!(
        (*members, counts.away, &named[..]),
        (4, 1, &["user02".to_owned()][..])
    );
    // Who goes is not followed for the group's sake any more; who is watched besides stays.
    let now = net.now;
    net.nodes[1].endpoint.watch(&user("user03"), now);
    net.nodes[0]
        .endpoint
        .kick(group, &user("user02"), "", now)
        .unwrap();
    net.run(Duration::from_secs(1));
    assert_eq!(follows(&net, 1), 2);
    assert_eq!(told(&mut net, 1).last().unwrap().0, 3);
    let now = net.now;
    net.nodes[1].endpoint.unwatch_group(group, now);
    net.run(Duration::from_secs(1));
    assert_eq!(follows(&net, 1), 1);
    assert!(net.nodes[1].endpoint.presence(&user("user03")).is_some());
    assert_eq!(net.nodes[1].endpoint.room_presence(group), None);
}

#[test]
fn p11_in_a_large_group_only_the_leader_follows_and_says_how_many_are_here() {
    let (mut net, group) = group(CROWD + 4);
    let all = u32::try_from(CROWD + 4).unwrap();
    assert_eq!(follows(&net, 0), CROWD + 3);
    assert!((1..CROWD + 4).all(|node| follows(&net, node) == 0));
    let now = net.now;
    net.nodes[1].endpoint.watch_group(group, now);
    let view = net.nodes[1].endpoint.room_presence(group).unwrap();
    assert_eq!(view.counts.unknown, all, "nothing was said yet");
    net.run(Duration::from_secs(10));
    let view = net.nodes[1].endpoint.room_presence(group).unwrap();
    assert_eq!(
        (view.members, view.counts.here(), view.whole),
        (all, all, false)
    );
    told(&mut net, 1);
    let now = net.now;
    net.nodes[5]
        .endpoint
        .set_presence(Status::Away, "", None, now);
    net.run(Duration::from_secs(5));
    let news = told(&mut net, 1);
    let named = news
        .iter()
        .find(|(.., named)| named.contains(&"user05".into()));
    assert_eq!(named.unwrap().1.away, 1);
    // A leader that falls silent: what it said holds for its time, then another leader speaks.
    let leader = net.nodes.remove(0);
    net.run(Duration::from_secs(30));
    let view = net.nodes[0].endpoint.room_presence(group).unwrap();
    assert_ne!(
        net.nodes[0].endpoint.group(group).unwrap().leader.as_ref(),
        Some(leader.endpoint.user())
    );
    assert_eq!(view.counts.here(), all - 1);
}

/// Deliveries while everybody changes its status once.
fn cost(members: usize) -> usize {
    let (mut net, group) = group(members);
    let now = net.now;
    for node in &mut net.nodes {
        node.endpoint.watch_group(group, now);
    }
    net.run(Duration::from_secs(10));
    net.delivered.clear();
    let now = net.now;
    for node in &mut net.nodes {
        node.endpoint.set_presence(Status::Away, "", None, now);
    }
    net.run(Duration::from_secs(4));
    for node in &net.nodes {
        let away = node.endpoint.room_presence(group).unwrap().counts.away;
        assert_eq!(away as usize, members);
    }
    [0x30, 0x33]
        .iter()
        .map(|kind| net.delivered.get(kind).copied().unwrap_or_default())
        .sum()
}

#[test]
fn p11_what_a_change_costs_does_not_grow_with_the_square_of_the_members() {
    // Below the crowd everybody hears everybody.
    let few = cost(CROWD);
    assert!(few >= CROWD * (CROWD - 1), "{few}");
    for members in [2 * CROWD, 4 * CROWD] {
        let many = cost(members);
        // Three records to the leader, and a handful of words to all.
        assert!(many <= 10 * members, "{many} deliveries for {members}");
    }
}

#[cfg(feature = "probe")]
#[test]
fn a_group_in_which_everybody_follows_everybody_is_found() {
    crate::probe::plant(Some("presence-everybody-follows-everybody"));
    let many = std::panic::catch_unwind(|| cost(2 * CROWD));
    crate::probe::plant(None);
    assert!(many.is_ok_and(|many| many > 10 * 2 * CROWD));
}
