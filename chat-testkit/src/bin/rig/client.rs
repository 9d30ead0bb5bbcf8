//! A client in a process of its own: it talks, obeys the rig, and says what happens, one line each.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chat_client::transport::Connector;
use chat_client::{Client, Event, EventStream, Identity, Room, SendError};
use chat_core::config::Config;
use chat_core::delivery::{DeliveryEvent, TimelineItem};
use chat_core::group::GroupEvent;
use chat_core::id::{ConvId, GroupId, GroupName, MessageId, TxnId, UserId};
use chat_core::identity::DeviceKey;
use chat_core::link::LinkState;
use chat_core::probe;
use chat_core::session::SessionState;
use chat_testkit::rig::Note;
use futures_util::future::join_all;
use tokio::sync::{mpsc, watch};

use super::disk::Disk;
use super::wall_micros;

/// What a client is started with.
#[derive(Clone, Debug, Default)]
pub(super) struct Orders {
    pub(super) name: String,
    pub(super) folder: PathBuf,
    /// The number of its next message.
    pub(super) next: u64,
    /// Messages whose fate is unknown, in their order: conversation and number.
    pub(super) doubtful: Vec<(String, u64)>,
    /// Pause between two messages; zero is silence.
    pub(super) pause: Duration,
    /// A bug to plant in the core.
    pub(super) bug: Option<String>,
}

/// Messages of a burst that are sent at once.
const BATCH: u64 = 24;
/// Before a full outbox is tried again.
const FULL: Duration = Duration::from_millis(20);

/// Times as on one machine, and budgets that a storm of repeats does not exhaust.
fn config() -> Config {
    let mut config = Config::lan();
    config.link.backoff_first = Duration::from_millis(20);
    config.link.backoff_max = Duration::from_millis(250);
    config.link.connect_timeout = Duration::from_secs(1);
    config.link.subscribe_timeout = Duration::from_millis(500);
    config.session.resend_first = Duration::from_millis(100);
    config.session.resend_max = Duration::from_secs(1);
    config.delivery.rto_first = Duration::from_millis(200);
    config.delivery.rto_max = Duration::from_secs(2);
    // More than this, and a broker that keeps every copy drowns its readers in them.
    config.delivery.retransmit_rate = 100;
    config.delivery.max_outbox = 20_000;
    config.budget.frames_per_second = 20_000;
    config.budget.burst = 40_000;
    config
}

fn say(note: &Note) {
    // A rig that is gone wants nothing more: the broken pipe ends this process.
    println!("{} {note}", wall_micros());
}

/// Every client knows the key of every other by its name.
pub(super) fn key(name: &str) -> DeviceKey {
    let mut secret = [0; 32];
    for (byte, of_name) in secret.iter_mut().zip(name.bytes()) {
        *byte = of_name;
    }
    DeviceKey::from_secret(secret)
}

/// What a message says: whose, which, and now and then much more.
fn text(name: &str, n: u64) -> String {
    let padding = if n % 20 == 7 { 6_000 } else { n * 37 % 200 };
    let padding = usize::try_from(padding).expect("small");
    format!("{name} {n} {:.<padding$}", "")
}

fn parse(text: &str) -> Option<(String, u64)> {
    let mut words = text.split(' ');
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

/// The same message has the same transaction in every life of its process.
fn transaction(n: u64) -> TxnId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&n.to_be_bytes());
    TxnId(id)
}

struct Shared {
    client: Client,
    name: String,
    convs: Mutex<BTreeMap<ConvId, usize>>,
    /// Who leads each group, in which round, and how many are in it.
    led: Mutex<BTreeMap<GroupId, (String, u64, usize)>>,
    /// Only looks on: it answers for no conversation.
    guest: AtomicBool,
    mine: Mutex<BTreeMap<MessageId, u64>>,
    pause: watch::Sender<Duration>,
    reading: watch::Sender<bool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs until the rig says enough, or the store fails.
pub(super) async fn run(orders: Orders, connector: impl Connector) -> ExitCode {
    probe::plant(orders.bug.map(|bug| &*Box::leak(bug.into_boxed_str())));
    say(&Note::Begin);
    let user = UserId::new(&orders.name).expect("names of the rig are valid");
    let store = match Disk::open(&orders.folder.join(format!("{}.redb", orders.name))) {
        Ok(store) => store,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let opened = Client::builder(Identity::new(user, key(&orders.name)))
        .store(store.clone())
        .transport(connector)
        .config(config())
        .open()
        .await;
    let client = match opened {
        Ok(client) => client,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let events = client.events().await;
    let shared = Arc::new(Shared {
        client,
        name: orders.name,
        convs: Mutex::default(),
        led: Mutex::default(),
        guest: AtomicBool::default(),
        mine: Mutex::default(),
        pause: watch::Sender::new(orders.pause),
        reading: watch::Sender::new(true),
    });
    let Ok(events) = events else {
        return stopped();
    };
    look_around(&shared).await;
    let (bursts, received) = mpsc::channel(4);
    tokio::spawn(talk(
        shared.clone(),
        orders.next,
        orders.doubtful.into(),
        received,
    ));
    let told = tokio::spawn(listen(shared.clone(), events.manual_ack()));
    let obeyed = obey(&shared, &store, bursts);
    tokio::select! {
        () = obeyed => ExitCode::SUCCESS,
        _ = told => stopped(),
    }
}

fn stopped() -> ExitCode {
    say(&Note::Stopped);
    ExitCode::from(3)
}

/// Tells which conversations are open, when that changed.
async fn look_around(shared: &Shared) {
    let mut open = Vec::new();
    for (peer, state) in shared.client.sessions().await.unwrap_or_default() {
        if matches!(state, SessionState::Active { .. }) {
            open.push((ConvId::between(shared.client.user(), &peer), 2));
        }
    }
    for view in shared.client.groups().await.unwrap_or_default() {
        let users: BTreeSet<_> = view.roster.iter().map(|member| &member.user).collect();
        if users.contains(shared.client.user()) {
            open.push((view.group.into(), users.len()));
        }
        if let Some(leader) = &view.leader {
            let now = (leader.to_string(), view.round, users.len());
            if lock(&shared.led).insert(view.group, now.clone()).as_ref() != Some(&now) {
                let (leader, round, members) = now;
                let conv = ConvId::from(view.group).to_string();
                say(&Note::Leads {
                    conv,
                    leader,
                    round,
                    members,
                });
            }
        }
    }
    if shared.guest.load(Ordering::Relaxed) {
        return;
    }
    for (conv, members) in open {
        if lock(&shared.convs).insert(conv, members) != Some(members) {
            let conv = conv.to_string();
            say(&Note::Member { conv, members });
        }
    }
}

async fn listen(shared: Arc<Shared>, mut events: EventStream) {
    let mut reading = shared.reading.subscribe();
    loop {
        if reading.wait_for(|reading| *reading).await.is_err() {
            return;
        }
        let Some(event) = events.next().await else {
            return;
        };
        match event {
            Event::Request(request) => {
                // It may have been withdrawn, or answered in an earlier life.
                request.accept().await.ok();
                look_around(&shared).await;
            }
            Event::JoinRequest(request) => {
                request.approve().await.ok();
                look_around(&shared).await;
            }
            Event::Message(received) => {
                let conv = received.id.stream.conv;
                let words = parse(received.content.fallback());
                let (from, n) = words.unwrap_or_else(|| ("nobody".to_owned(), 0));
                // A signed lie would be a message of somebody else.
                let from = if from == received.from.as_str() {
                    from
                } else {
                    format!("not-{from}")
                };
                say(&Note::Received {
                    conv: conv.to_string(),
                    from,
                    n,
                    pos: received.pos,
                    again: received.redelivered,
                });
                shared.client.conversation(conv).acknowledge(received.pos);
            }
            Event::Delivery(DeliveryEvent::Gap { conv, count, .. }) => {
                let conv = conv.to_string();
                say(&Note::Gap { conv, count });
            }
            Event::Delivery(DeliveryEvent::Failed { id, .. }) => {
                let n = lock(&shared.mine).get(&id).copied().unwrap_or_default();
                say(&Note::Failed { n });
            }
            Event::Group(GroupEvent::LeadOffered { group, .. }) => {
                if let Ok(Some(room)) = shared.client.group(group).await {
                    // The offer may be off by now.
                    room.answer_offer(true).await.ok();
                }
            }
            Event::Session(_) | Event::Group(_) => look_around(&shared).await,
            Event::Link(state) => {
                eprintln!("{} {state:?}", wall_micros());
                match state {
                    LinkState::CaughtUp => say(&Note::Up),
                    LinkState::Disconnected { .. } | LinkState::Failed { .. } => say(&Note::Down),
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

/// So many messages without a pause.
#[derive(Debug, Default)]
struct Burst {
    count: u64,
    /// All to this conversation; without it to all in turn.
    conv: Option<String>,
}

/// Repeats what is in doubt, and then says something new at every pause.
async fn talk(
    shared: Arc<Shared>,
    mut next: u64,
    mut doubtful: VecDeque<(String, u64)>,
    mut bursts: mpsc::Receiver<Burst>,
) {
    let mut turn = 0;
    let mut pause = shared.pause.subscribe();
    let mut burst = Burst::default();
    loop {
        if burst.count == 0
            && let Ok(more) = bursts.try_recv()
        {
            burst = more;
        }
        let now = *pause.borrow_and_update();
        let convs: Vec<_> = lock(&shared.convs).keys().copied().collect();
        let quiet = now.is_zero() && burst.count == 0 && doubtful.is_empty();
        if quiet || convs.is_empty() {
            tokio::select! {
                changed = pause.changed() => if changed.is_err() { return },
                Some(more) = bursts.recv(), if burst.count == 0 => burst = more,
                () = tokio::time::sleep(Duration::from_millis(5)), if !quiet => {}
            }
            continue;
        }
        let named = |conv: &str| {
            convs
                .iter()
                .copied()
                .find(|known| known.to_string() == conv)
        };
        let mut batch = Vec::new();
        if let Some((conv, n)) = doubtful.pop_front() {
            batch.push((named(&conv).expect("conversations stay open"), n));
        } else {
            for _ in 0..burst.count.clamp(1, BATCH) {
                turn += 1;
                let conv = burst.conv.as_deref().and_then(named);
                batch.push((conv.unwrap_or(convs[turn % convs.len()]), next));
                next += 1;
            }
        }
        // Calls begin in this order, and so are taken in it.
        let sends = batch.iter().map(|(conv, n)| send(&shared, *conv, *n));
        if !join_all(sends).await.into_iter().all(|known| known) {
            return;
        }
        if burst.count > 0 {
            burst.count = burst.count.saturating_sub(BATCH);
        } else {
            tokio::time::sleep(now).await;
        }
    }
}

/// Sends one message; false when nobody knows what became of it, and this client has stopped.
async fn send(shared: &Shared, conv: ConvId, n: u64) -> bool {
    say(&Note::Invoke {
        conv: conv.to_string(),
        n,
    });
    let content = text(&shared.name, n);
    let conversation = shared.client.conversation(conv);
    loop {
        let sent = conversation.send_with(transaction(n), content.as_str());
        match sent.await {
            Ok(sent) => {
                lock(&shared.mine).insert(sent.id(), n);
                say(&Note::Ok { n });
                return true;
            }
            Err(full) if full.is_retryable() => tokio::time::sleep(FULL).await,
            Err(SendError::Refused(why)) => {
                eprintln!("{n}: {why}");
                say(&Note::Refused { n });
                return true;
            }
            Err(_) => return false,
        }
    }
}

/// Does what the rig writes, until it writes no more.
async fn obey(shared: &Shared, store: &Disk, bursts: mpsc::Sender<Burst>) {
    let (sender, mut lines) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    while let Some(line) = lines.recv().await {
        let words: Vec<_> = line.split(' ').collect();
        match words.as_slice() {
            ["ask", peer] => {
                let asked = shared.client.request(*peer).send().await;
                asked.expect("a request can be made");
            }
            ["create"] => {
                let name = GroupName::new("rig").expect("a valid name");
                let room = shared.client.create_group(&name).await;
                let room = room.expect("a group can be made");
                println!("# group {}", hex(room.group().as_bytes()));
                look_around(shared).await;
            }
            ["join", group] => {
                let group = GroupId(unhex(group).expect("the rig writes what we told it"));
                // Who has just left may not know yet that it is out. The rig waits for the outcome.
                while let Err(error) = shared.client.join(group).send().await {
                    eprintln!("{error}");
                    tokio::time::sleep(FULL).await;
                }
            }
            ["knock", group] => {
                shared.guest.store(true, Ordering::Relaxed);
                let group = GroupId(unhex(group).expect("the rig writes what we told it"));
                let asked = shared.client.join(group).send().await;
                asked.expect("joining can be asked for");
            }
            ["leave", group] => {
                let room = room(shared, group).await;
                let leave = room.leave().await.expect("there is a successor");
                leave.commit().await.expect("leaving is possible");
            }
            ["pass", group, to] => {
                let to = UserId::new(to).expect("names of the rig are valid");
                // The next round asks whoever leads then.
                room(shared, group).await.hand_over(&to).await.ok();
            }
            ["pause", micros] => {
                let micros = micros.parse().expect("a number");
                shared.pause.send_replace(Duration::from_micros(micros));
            }
            ["burst", count, conv @ ..] => {
                let count = count.parse().expect("a number");
                let conv = conv.first().map(|conv| (*conv).to_owned());
                // Nobody talks any more when the client has stopped.
                bursts.send(Burst { count, conv }).await.ok();
            }
            ["read", on] => {
                shared.reading.send_replace(*on == "true");
            }
            ["full"] => store.fill(),
            ["show"] => show(shared).await,
            _ => eprintln!("what is {line:?}?"),
        }
    }
}

async fn room(shared: &Shared, group: &str) -> Room {
    let group = GroupId(unhex(group).expect("the rig writes what we told it"));
    let room = shared.client.group(group).await;
    room.expect("the client runs").expect("it is in the group")
}

/// Every timeline, as it is stored.
async fn show(shared: &Shared) {
    let convs: Vec<_> = lock(&shared.convs).keys().copied().collect();
    for conv in convs {
        let items = shared.client.conversation(conv).latest(usize::MAX).await;
        for item in items.expect("its own rows are whole") {
            let (content, failed) = match &item {
                TimelineItem::Received(received) => (&received.content, false),
                TimelineItem::Sent {
                    content, failed, ..
                } => (content, failed.is_some()),
                _ => continue,
            };
            let Some((from, n)) = parse(content.fallback()) else {
                continue;
            };
            let conv = conv.to_string();
            say(&Note::Shown { conv, from, n });
            if failed {
                say(&Note::Failed { n });
            }
        }
    }
    println!("# shown");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}
