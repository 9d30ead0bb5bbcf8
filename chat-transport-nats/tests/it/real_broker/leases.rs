//! Leases: two contenders, expiry, and a stale revision.

use core::time::Duration;
use std::time::Instant;

use chat_client::transport::LeaseError;
use chat_core::id::{DeviceId, GroupId};
use chat_testkit::broker::Memory;

use super::{builder, connector, jetstream};
use chat_testkit::peer::{Peer, within};

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
