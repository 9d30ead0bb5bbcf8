//! Leases: two contenders, expiry, a stale revision, and a failover that a lapse shortens.

use core::time::Duration;
use std::future::IntoFuture;
use std::time::Instant;

use chat_client::store::MemoryStore;
use chat_client::transport::LeaseError;
use chat_client::{CallError, Client, Event, Identity};
use chat_core::config::Config;
use chat_core::group::GroupError;
use chat_core::id::{DeviceId, GroupId, GroupName};
use chat_core::identity::DeviceKey;
use chat_testkit::broker::Memory;
use chat_transport_nats::NatsConnector;
use tokio::task::JoinHandle;

use super::{builder, connector, jetstream};
use chat_testkit::peer::{Peer, user, within};

const GROUP: GroupId = GroupId([9; 32]);
const ALICE: DeviceId = DeviceId([1; 32]);
const BOB: DeviceId = DeviceId([2; 32]);
/// Renewed every 100 ms, also on a machine that is slow.
const TTL: Duration = Duration::from_secs(3);

#[tokio::test]
async fn one_of_two_contenders_gets_the_lease() {
    let broker = jetstream();
    let to = connector(&broker);
    let (a, b) = (
        Peer::connect(&to, "alice").await.unwrap(),
        Peer::connect(&to, "bob").await.unwrap(),
    );
    let (a, b) = (a.leases().unwrap(), b.leases().unwrap());
    for round in 0..20 {
        let (mine, yours) = tokio::join!(a.acquire(GROUP, ALICE), b.acquire(GROUP, BOB));
        let (winner, loser) = match (mine, yours) {
            (Ok(lease), Err(error)) => (lease, (error, ALICE)),
            (Err(error), Ok(lease)) => (lease, (error, BOB)),
            both => panic!("round {round}: {both:?}"),
        };
        assert_eq!(loser.0, LeaseError::Held { by: loser.1 });
        let service = if loser.1 == ALICE { &a } else { &b };
        let newer = service.renew(&winner).await.unwrap();
        assert!(newer.revision > winner.revision);
        let stale = LeaseError::Stale {
            revision: winner.revision,
        };
        assert_eq!(service.renew(&winner).await, Err(stale.clone()));
        assert_eq!(service.release(winner).await, Err(stale));
        service.release(newer.clone()).await.unwrap();
        let stale = LeaseError::Stale {
            revision: newer.revision,
        };
        assert_eq!(service.renew(&newer).await, Err(stale));
    }
}

#[tokio::test]
async fn a_lease_that_is_not_renewed_is_over() {
    let broker = jetstream();
    let to = builder(&broker).lease_ttl(TTL).build().unwrap();
    let (a, b) = (
        Peer::connect(&to, "alice").await.unwrap(),
        Peer::connect(&to, "bob").await.unwrap(),
    );
    let (a, b) = (a.leases().unwrap(), b.leases().unwrap());
    assert_eq!(a.ttl(), TTL);
    let mut lease = a.acquire(GROUP, ALICE).await.unwrap();
    // Renewed, it outlives its first time.
    let start = Instant::now();
    while start.elapsed() < TTL + Duration::from_millis(500) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        lease = a.renew(&lease).await.unwrap();
        assert_eq!(
            b.acquire(GROUP, BOB).await,
            Err(LeaseError::Held { by: ALICE })
        );
    }
    let taken = within(async {
        loop {
            match b.acquire(GROUP, BOB).await {
                Ok(lease) => return lease,
                Err(LeaseError::Held { by }) => assert_eq!(by, ALICE),
                Err(other) => panic!("{other}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(taken.revision > lease.revision, "fencing tokens grow");
    let stale = LeaseError::Stale {
        revision: lease.revision,
    };
    assert_eq!(a.renew(&lease).await, Err(stale));
}

#[tokio::test]
async fn the_next_process_of_a_device_fences_the_one_before() {
    let broker = jetstream();
    let peer = Peer::connect(&connector(&broker), "alice").await.unwrap();
    let leases = peer.leases().unwrap();
    let before = leases.acquire(GROUP, ALICE).await.unwrap();
    let after = leases.acquire(GROUP, ALICE).await.unwrap();
    assert!(after.revision > before.revision);
    let stale = LeaseError::Stale {
        revision: before.revision,
    };
    assert_eq!(leases.renew(&before).await, Err(stale));
    leases.renew(&after).await.unwrap();
    let other = leases.acquire(GroupId([8; 32]), BOB).await;
    assert!(other.is_ok(), "each group has its own");
}

#[tokio::test]
async fn a_lease_outlives_the_connection_and_the_server_and_the_handle_does_not() {
    let mut broker = jetstream();
    let to = connector(&broker);
    let peer = Peer::connect(&to, "alice").await.unwrap();
    let leases = peer.leases().unwrap();
    let lease = leases.acquire(GROUP, ALICE).await.unwrap();
    peer.close().await.unwrap();
    assert!(matches!(
        leases.renew(&lease).await,
        Err(LeaseError::Unavailable(_))
    ));
    broker.restart(Memory::Kept).unwrap();
    let peer = Peer::connect(&to, "alice").await.unwrap();
    let leases = peer.leases().unwrap();
    assert_eq!(
        leases.acquire(GROUP, BOB).await,
        Err(LeaseError::Held { by: ALICE })
    );
    leases.renew(&lease).await.unwrap();
}

async fn client(name: &str, key: u8, to: &NatsConnector, config: &Config) -> Client {
    let identity = Identity::new(user(name), DeviceKey::from_secret([key; 32]));
    let builder = Client::builder(identity).store(MemoryStore::new());
    let builder = builder.config(config.clone()).transport(to.clone());
    builder.open().await.unwrap()
}

/// Lets everybody in who asks, while it leads.
async fn welcome(client: &Client) -> JoinHandle<()> {
    let mut events = client.events().await.unwrap();
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Event::JoinRequest(join) = event {
                // A machine that is busy elsewhere may be offline just now.
                while let Err(CallError::Refused(GroupError::Offline)) = join.approve().await {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    })
}

#[tokio::test]
async fn g4_a_lapsed_lease_lets_others_succeed_who_would_have_waited_an_hour() {
    let broker = jetstream();
    let to = builder(&broker).lease_ttl(TTL).build().unwrap();
    let mut config = Config::lan();
    // A slow machine loses no leader over it, also while the lease is late.
    config.group = config.group.with_beat(Duration::from_secs(1));
    config.group.suspect = Duration::from_secs(1_800);
    config.group.succeed = Duration::from_secs(3_600);
    let alice = client("alice", 1, &to, &config).await;
    let welcoming = welcome(&alice).await;
    let room = alice.create_group(&GroupName::new("ops").unwrap()).await;
    let group = room.unwrap().group();
    let mut rooms = Vec::new();
    for (name, key) in [("bob", 2), ("cyd", 3)] {
        let other = client(name, key, &to, &config).await;
        welcome(&other).await;
        rooms.push(within(other.join(group).into_future()).await.unwrap());
    }
    let watcher = Peer::connect(&to, "eve").await.unwrap();
    let leases = watcher.leases().unwrap();
    let holder = async |wanted: &[DeviceId]| {
        within(async {
            loop {
                let holder = leases.holder(group).await.unwrap();
                if holder.is_some_and(|holder| wanted.contains(&holder)) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    };
    holder(&[alice.device()]).await;
    within(alice.shutdown(Duration::from_secs(1)))
        .await
        .unwrap();
    within(welcoming).await.unwrap();
    for room in &rooms {
        within(async {
            while room.leader().await.unwrap() == Some(user("alice")) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
    let devices: Vec<_> = rooms.iter().map(|room| room.client().device()).collect();
    holder(&devices).await;
}
