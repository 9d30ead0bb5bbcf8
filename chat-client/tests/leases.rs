//! Outside leases shorten a failover, and a service that is dead or lies costs nothing.

#![allow(clippy::unwrap_used, reason = "tests, and helpers of tests")]

mod support;

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use chat_client::store::MemoryStore;
use chat_client::transport::memory::MemoryBroker;
use chat_client::transport::{
    Capabilities, ConnectOptions, Connector, FencingLease, FencingLeases, Inbound, LeaseError,
    Outbound, Transport, TransportError,
};
use chat_client::{CallError, Client, Event, EventStream, Identity, Room, TokioWall};
use chat_core::delivery::Ack;
use chat_core::group::{GroupError, Guarantee, Rules};
use chat_core::id::{DeviceId, GroupId, GroupName};
use chat_core::time::UnixMillis;
use support::*;
use tokio::time::Instant;

const TTL: Duration = Duration::from_secs(15);

/// What the service is like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Honest,
    /// It answers nothing.
    Dead,
    /// It grants a lease to whoever asks, and says that nobody holds it.
    Denies,
    /// It says that a stranger holds every lease.
    Invents,
}

#[derive(Debug)]
struct Grants {
    mood: Mutex<Mood>,
    held: Mutex<BTreeMap<GroupId, (FencingLease, Instant)>>,
    revision: AtomicU64,
    questions: AtomicU64,
}

const STRANGER: DeviceId = DeviceId([0xee; 32]);

impl Grants {
    fn new(mood: Mood) -> Arc<Self> {
        Arc::new(Self {
            mood: Mutex::new(mood),
            held: Mutex::default(),
            revision: AtomicU64::default(),
            questions: AtomicU64::default(),
        })
    }

    async fn mood(&self) -> Mood {
        let mood = *self.mood.lock().unwrap();
        if mood == Mood::Dead {
            std::future::pending::<()>().await;
        }
        mood
    }

    fn standing(&self, group: GroupId) -> Option<FencingLease> {
        let held = self.held.lock().unwrap();
        let (lease, until) = held.get(&group)?;
        (*until > Instant::now()).then(|| lease.clone())
    }

    fn grant(&self, group: GroupId, holder: DeviceId) -> FencingLease {
        let lease = FencingLease {
            group,
            holder,
            revision: self.revision.fetch_add(1, Ordering::Relaxed),
        };
        let entry = (lease.clone(), Instant::now() + TTL);
        self.held.lock().unwrap().insert(group, entry);
        lease
    }
}

#[async_trait::async_trait]
impl FencingLeases for Grants {
    fn ttl(&self) -> Duration {
        TTL
    }

    async fn holder(&self, group: GroupId) -> Result<Option<DeviceId>, LeaseError> {
        self.questions.fetch_add(1, Ordering::Relaxed);
        Ok(match self.mood().await {
            Mood::Denies => None,
            Mood::Invents => Some(STRANGER),
            _ => self.standing(group).map(|lease| lease.holder),
        })
    }

    async fn acquire(&self, group: GroupId, holder: DeviceId) -> Result<FencingLease, LeaseError> {
        match (self.mood().await, self.standing(group)) {
            (Mood::Invents, _) => Err(LeaseError::Held { by: STRANGER }),
            (Mood::Honest, Some(lease)) if lease.holder != holder => {
                Err(LeaseError::Held { by: lease.holder })
            }
            _ => Ok(self.grant(group, holder)),
        }
    }

    async fn renew(&self, lease: &FencingLease) -> Result<FencingLease, LeaseError> {
        let mood = self.mood().await;
        if mood == Mood::Honest && self.standing(lease.group).as_ref() != Some(lease) {
            return Err(LeaseError::Stale {
                revision: lease.revision,
            });
        }
        Ok(self.grant(lease.group, lease.holder))
    }

    async fn release(&self, lease: FencingLease) -> Result<(), LeaseError> {
        self.mood().await;
        self.held.lock().unwrap().remove(&lease.group);
        Ok(())
    }
}

/// The broker in memory, with leases.
#[derive(Clone, Debug)]
struct Leased(MemoryBroker, Option<Arc<Grants>>);

struct Line(Box<dyn Transport>, Option<Arc<Grants>>);

#[async_trait::async_trait]
impl Connector for Leased {
    fn capabilities(&self) -> &'static Capabilities {
        self.0.capabilities()
    }

    async fn connect(&self, options: ConnectOptions) -> Result<Box<dyn Transport>, TransportError> {
        let line = self.0.connect(options).await?;
        Ok(Box::new(Line(line, self.1.clone())))
    }
}

impl Transport for Line {
    fn capabilities(&self) -> &'static Capabilities {
        self.0.capabilities()
    }

    fn leases(&self) -> Option<Arc<dyn FencingLeases>> {
        self.1.clone().map(|grants| grants as _)
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Inbound, TransportError>> {
        self.0.poll_recv(cx)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.0.poll_ready(cx)
    }

    fn start_send(&mut self, item: Outbound) -> Result<(), TransportError> {
        self.0.start_send(item)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.0.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.0.poll_close(cx)
    }
}

struct Crew {
    broker: MemoryBroker,
    rooms: Vec<Room>,
    /// Read by nobody else, so that nobody stops receiving.
    _streams: Vec<tokio::task::JoinHandle<()>>,
}

async fn client(name: &str, to: &Leased) -> Client {
    Client::builder(Identity::new(user(name), key(name)))
        .store(MemoryStore::new())
        .transport(to.clone())
        .seed([name.len() as u8; 32])
        .wall_clock(TokioWall::starting_at(UnixMillis(1_800_000_000_000)))
        .open()
        .await
        .unwrap()
}

/// Lets everybody in who asks.
fn welcome(mut events: EventStream) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(event) = events.next().await {
            if let Event::JoinRequest(join) = event {
                // A strict leader waits until the member before is heard.
                while let Err(CallError::Refused(GroupError::NoMajority)) = join.approve().await {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    })
}

/// Alice leads; bob, cyd and dan are in.
async fn crew(grants: Option<Arc<Grants>>, rules: Rules) -> Crew {
    let broker = MemoryBroker::new();
    let to = Leased(broker.clone(), grants);
    let name = GroupName::new("ops").unwrap();
    let alice = client("alice", &to).await;
    let mut streams = vec![welcome(alice.events().await.unwrap())];
    let first = alice.create_group_with(&name, rules).await.unwrap();
    let group = first.group();
    let mut rooms = vec![first];
    for name in ["bob", "cyd", "dan"] {
        let other = client(name, &to).await;
        streams.push(welcome(other.events().await.unwrap()));
        rooms.push(soon(other.join(group).into_future()).await.unwrap());
    }
    Crew {
        broker,
        rooms,
        _streams: streams,
    }
}

impl Crew {
    /// Alice is gone without a word; how long until everybody else sees another leader.
    async fn failover(&self) -> Duration {
        let start = Instant::now();
        self.broker.offline(&user("alice"));
        for room in &self.rooms[1..] {
            soon(async {
                while room.leader().await.unwrap() == Some(user("alice")) {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            })
            .await;
        }
        start.elapsed()
    }

    async fn round(&self) -> u64 {
        let mut rounds = Vec::new();
        for room in &self.rooms {
            rounds.push(room.term().await.unwrap());
        }
        rounds.dedup();
        assert_eq!(rounds.len(), 1, "{rounds:?}");
        rounds[0]
    }
}

#[tokio::test(start_paused = true)]
async fn g4_a_lease_that_lapses_shortens_the_failover() {
    let plain = crew(None, Rules::default()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let without = plain.failover().await;
    let grants = Grants::new(Mood::Honest);
    let leased = crew(Some(grants), Rules::default()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let with = leased.failover().await;
    assert!(without > Duration::from_secs(50), "{without:?}");
    assert!(with < Duration::from_secs(40), "{with:?}");
    // Who leads now holds it, as soon as it looks.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(leased.rooms[1].leader().await.unwrap(), Some(user("bob")));
}

#[tokio::test(start_paused = true)]
async fn the_leader_holds_the_lease_and_gives_it_back_with_the_lead() {
    let grants = Grants::new(Mood::Honest);
    let crew = crew(Some(grants.clone()), Rules::strict()).await;
    let group = crew.rooms[0].group();
    let holder = || grants.standing(group).map(|lease| lease.holder);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(holder(), Some(crew.rooms[0].client().device()));
    assert_eq!(crew.rooms[0].guarantee().await.unwrap(), Guarantee::Fenced);
    assert_eq!(
        grants.questions.load(Ordering::Relaxed),
        0,
        "nobody asks while the leader is heard"
    );
    crew.rooms[0].hand_over(&user("cyd")).await.unwrap();
    let room = &crew.rooms[2];
    soon(async {
        while room.answer_offer(true).await.is_err() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        while holder() != Some(room.client().device()) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(room.guarantee().await.unwrap(), Guarantee::Fenced);
    assert_eq!(crew.rooms[0].guarantee().await.unwrap(), Guarantee::Led);
    // A service that dies takes the promise with it, and nothing else.
    *grants.mood.lock().unwrap() = Mood::Dead;
    let round = crew.round().await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert_eq!(room.guarantee().await.unwrap(), Guarantee::Led);
    assert_eq!(crew.round().await, round);
}

#[tokio::test(start_paused = true)]
async fn a_lease_service_that_is_dead_or_lies_costs_nothing() {
    let plain = crew(None, Rules::default()).await;
    let without = plain.failover().await;
    for mood in [Mood::Dead, Mood::Denies, Mood::Invents] {
        let crew = crew(Some(Grants::new(mood)), Rules::default()).await;
        let (round, start) = (crew.round().await, Instant::now());
        while start.elapsed() < Duration::from_secs(600) {
            let sent = soon(crew.rooms[3].send("on it goes")).await.unwrap();
            let took = Instant::now();
            soon(sent.until(Ack::Delivered)).await.unwrap();
            assert!(took.elapsed() < Duration::from_secs(5), "{mood:?}");
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        assert_eq!(crew.round().await, round, "{mood:?} deposed a leader");
        let with = crew.failover().await;
        let slack = Duration::from_secs(10);
        assert!(with < without + slack, "{mood:?}: {with:?} for {without:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_leads_nothing_sleeps_as_if_there_were_no_leases() {
    // Wake-ups in an hour, of a member of a group and of somebody in none.
    let quiet = async |grants: Option<Arc<Grants>>| {
        let crew = crew(grants.clone(), Rules::default()).await;
        let alone = client("eve", &Leased(crew.broker.clone(), grants)).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let both = [crew.rooms[1].client(), &alone];
        let mut polls = [0, 0];
        for (polls, client) in polls.iter_mut().zip(both) {
            *polls = client.stats().await.unwrap().polls;
        }
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        for (polls, client) in polls.iter_mut().zip(both) {
            *polls = client.stats().await.unwrap().polls - *polls;
        }
        polls
    };
    let without = quiet(None).await;
    let with = quiet(Some(Grants::new(Mood::Honest))).await;
    for (with, without) in with.into_iter().zip(without) {
        // Three per time to live would be 720.
        assert!(with < without + 50, "{with} for {without}");
    }
}
