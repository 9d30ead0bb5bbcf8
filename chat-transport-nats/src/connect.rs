//! From an address to an open connection: TCP, login, streams, the session. One deadline covers
//! all of it; dropping the future drops the connection.

use core::task::{Context, Poll};
use core::time::Duration;
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::{Arc, Mutex};

use async_nats::{Client, Subscriber};
use bytes::Bytes;
use chat_client::transport::{
    Capabilities, ChannelTransport, ConnectOptions, Connector as _, FencingLeases, Inbound,
    Outbound, Transport, TransportError, channel,
};
use chat_core::channel::Channel;
use chat_core::id::escape;
use chat_core::link::DownReason;
use futures_util::StreamExt;
use futures_util::future::try_join4;
use tokio::time::{Instant, timeout_at};

use crate::api::{Api, ApiError, NewRepublish, NewStream, StreamInfo, nanos, unique};
use crate::capabilities::MAX_FRAME;
use crate::config::{Config, Keeping, Login, NatsConnector};
use crate::events::{self, Incident, Incidents};
use crate::leases::Leases;
use crate::run::{self, Log, MAX_LANES, Start};
use crate::session::Record;
use crate::subject::{Subjects, path, session_key};

/// Places in each direction between the client and the connection's task.
const PLACES: usize = 256;
/// Messages that wait in one subscription; more are dropped by the client library. It must hold
/// the answers to everything in flight.
pub(crate) const SUBSCRIPTION: usize = 1_024;
/// Commands that wait for the socket.
const COMMANDS: usize = 512;
/// A mark that is not back by so long after its barrier was lost in a flood of other words.
pub(crate) const GRACE: Duration = Duration::from_millis(200);
/// Places for incidents that overflows leave free.
const SPARE: usize = 128;
/// Headers and the like around a frame.
const AROUND: usize = 1_024;
/// How long a last value is kept that nobody renews.
const LAST_VALUE: Duration = Duration::from_secs(24 * 3600);
/// The server remembers ids of frames for this long.
const DEDUP_WINDOW: Duration = Duration::from_secs(120);

/// A connection to a server.
pub(crate) struct NatsTransport {
    inner: ChannelTransport,
    leases: Option<Arc<dyn FencingLeases>>,
}

pub(crate) async fn connect(
    to: &NatsConnector,
    options: &ConnectOptions,
) -> Result<NatsTransport, TransportError> {
    let opening = Box::pin(open(to, options));
    match tokio::time::timeout(to.config.deadline, opening).await {
        Ok(result) => result,
        Err(_) => {
            let words = "the server did not welcome us in time".to_owned();
            Err(TransportError::new(DownReason::Other(words)))
        }
    }
}

async fn open(
    to: &NatsConnector,
    options: &ConnectOptions,
) -> Result<NatsTransport, TransportError> {
    let config = &to.config;
    let (sender, incidents) = events::queue();
    let client = dial(config, options, sender).await?;
    let mut watch = Watch {
        incidents,
        subjects: config.subjects.clone(),
        denied: BTreeSet::new(),
        marked: false,
    };
    // A library that reconnects by itself would repeat subscriptions and publishes behind the
    // core's back: from now on it has nowhere to go.
    let nowhere = client.set_server_pool("nats://127.0.0.1:0");
    (watch.during(nowhere).await?).map_err(|_| TransportError::lost())?;

    let inbox = client.new_inbox();
    let subscribed = watch.during(client.subscribe(format!("{inbox}.*"))).await?;
    let mut answers = subscribed.map_err(|_| TransportError::lost())?;
    echo(&client, &inbox, &mut answers, &mut watch).await?;

    let api = Api {
        client: client.clone(),
        deadline: config.deadline,
    };
    let (mut log, mut leases) = (None, None);
    if let Some(keeping) = &config.jetstream {
        let provisioned = watch
            .during(Box::pin(provision(&api, config, keeping)))
            .await?;
        let streams = provisioned.map_err(|error| error.for_client(&client))?;
        let way = Arc::new(Mutex::new(Some(api.clone())));
        leases = Some(Arc::new(Leases {
            way: way.clone(),
            bucket: config.subjects.leases(),
            ttl: streams.lease,
        }) as Arc<dyn FencingLeases>);
        let session = resume(
            to,
            options,
            &api,
            &streams,
            &inbox,
            &mut answers,
            &mut watch,
        );
        log = Some(Log {
            way,
            ..session.await?
        });
    }

    let caps: &'static Capabilities = to.capabilities();
    let (inner, io) = channel(caps, PLACES);
    let limit = client.server_info().max_payload.saturating_sub(AROUND);
    let start = Start {
        client,
        api,
        config: config.clone(),
        shared: to.shared.clone(),
        io,
        answers,
        inbox,
        incidents: watch.incidents,
        max_frame: limit.min(MAX_FRAME),
        log,
    };
    // The client library's event loop has a task of its own, and so has what feeds it: neither
    // is ever cancelled. This one ends when the transport is dropped.
    tokio::spawn(run::run(start));
    Ok(NatsTransport { inner, leases })
}

async fn dial(
    config: &Config,
    options: &ConnectOptions,
    incidents: tokio::sync::mpsc::Sender<Incident>,
) -> Result<Client, TransportError> {
    let refused = |text: String| TransportError::new(DownReason::Refused(text));
    let mut dial = async_nats::ConnectOptions::new()
        .name(escape(options.user.as_str()))
        .connection_timeout(config.deadline)
        .request_timeout(Some(config.deadline))
        .ping_interval(config.ping)
        .subscription_capacity(SUBSCRIPTION)
        .client_capacity(COMMANDS)
        .max_reconnects(config.servers.len())
        .ignore_discovered_servers()
        .event_callback(move |event| {
            if let Some(incident) = events::incident(event) {
                // A flood of overflows must not push out what else is said. Full or gone: the end
                // of the connection tells the rest.
                let flood = incident == Incident::Overflow && incidents.capacity() < SPARE;
                if !flood {
                    incidents.try_send(incident).ok();
                }
            }
            core::future::ready(())
        });
    if let Some(prefix) = &config.inbox {
        dial = dial.custom_inbox_prefix(prefix);
    }
    for ca in &config.ca {
        dial = dial.add_root_certificates(ca.clone());
    }
    if let Some((certificate, key)) = &config.client_cert {
        dial = dial.add_client_certificate(certificate.clone(), key.clone());
    }
    dial = match &config.login {
        Login::Nobody => dial,
        Login::Token(token) => dial.token(token.clone()),
        Login::Password(user, password) => dial.user_and_password(user.clone(), password.clone()),
        Login::Seed(seed) => dial.nkey(seed.clone()),
        Login::Credentials(text) => {
            (dial.credentials(text)).map_err(|e| refused(format!("the credentials: {e}")))?
        }
        Login::CredentialsFile(path) => (dial.credentials_file(path).await)
            .map_err(|e| refused(format!("the credentials in {}: {e}", path.display())))?,
    };
    let connected = dial.connect(config.servers.as_slice()).await;
    connected.map_err(|error| events::connect_error(&error))
}

/// Watches for what the server says while something is awaited.
struct Watch {
    incidents: Incidents,
    subjects: Subjects,
    /// Filters of channels that we may not subscribe.
    denied: BTreeSet<String>,
    /// The mark came back.
    marked: bool,
}

impl Watch {
    async fn during<T>(&mut self, future: impl Future<Output = T>) -> Result<T, TransportError> {
        tokio::pin!(future);
        loop {
            tokio::select! {
                biased;
                incident = self.incidents.recv() => self.note(incident)?,
                out = &mut future => return Ok(out),
            }
        }
    }

    fn note(&mut self, incident: Option<Incident>) -> Result<(), TransportError> {
        match incident {
            Some(Incident::SubscribeDenied(filter))
                if self.subjects.filtered(&filter).is_some() =>
            {
                self.denied.insert(filter);
                Ok(())
            }
            Some(Incident::SubscribeDenied(subject) | Incident::PublishDenied(subject)) => {
                Err(TransportError::new(not_allowed(&subject)))
            }
            Some(Incident::Mark) => {
                self.marked = true;
                Ok(())
            }
            Some(Incident::Overflow) => Ok(()),
            Some(Incident::Ends(reason)) => Err(TransportError::new(reason)),
            Some(Incident::Ended) | None => Err(TransportError::lost()),
        }
    }
}

/// The account lacks something without which nothing works.
pub(crate) fn not_allowed(subject: &str) -> DownReason {
    DownReason::Refused(format!("the account may not use {subject}; grant it"))
}

/// There and back: the server has done everything that was sent before, and what it said about
/// that has been heard.
async fn echo(
    client: &Client,
    inbox: &str,
    answers: &mut Subscriber,
    watch: &mut Watch,
) -> Result<(), TransportError> {
    watch.marked = false;
    watch.during(events::mark(client, inbox)).await??;
    let sent = client.publish(format!("{inbox}.0"), Bytes::new());
    (watch.during(sent).await?).map_err(|_| TransportError::lost())?;
    if watch.during(answers.next()).await?.is_none() {
        return Err(TransportError::lost());
    }
    let grace = Instant::now() + GRACE;
    while !watch.marked {
        match timeout_at(grace, watch.incidents.recv()).await {
            Ok(incident) => watch.note(incident)?,
            Err(_) => break,
        }
    }
    Ok(())
}

struct Streams {
    /// Which log it is: when it was created.
    log: String,
    mailbox: u64,
    lease: Duration,
}

enum Missing {
    Api(ApiError),
    Stream(String),
    Shape(String),
}

impl From<ApiError> for Missing {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl Missing {
    fn for_client(self, client: &Client) -> TransportError {
        let reason = match self {
            Self::Api(error @ ApiError::NoResponders(_)) if !client.server_info().jetstream => {
                DownReason::Refused(error.to_string())
            }
            Self::Api(error) => return error.into(),
            Self::Stream(name) => DownReason::Refused(format!(
                "there is no stream {name}; create it, or allow the connector to"
            )),
            Self::Shape(name) => DownReason::Refused(format!(
                "the stream {name} is not made as this library makes it; use another prefix"
            )),
        };
        TransportError::new(reason)
    }
}

async fn provision(api: &Api, config: &Config, keeping: &Keeping) -> Result<Streams, Missing> {
    let subjects = &config.subjects;
    let age = nanos(keeping.age);
    let log = NewStream {
        max_msgs_per_subject: keeping.mailbox.into(),
        discard: "old",
        duplicate_window: nanos(DEDUP_WINDOW.min(keeping.age)),
        allow_rollup_hdrs: false,
        deny_delete: false,
        republish: Some(NewRepublish {
            src: subjects.log_subjects(),
            dest: subjects.log_republished(),
        }),
        ..stream(subjects.log_stream(), subjects.log_subjects(), age, keeping)
    };
    let bucket = |bucket: crate::subject::Bucket, age: u64| {
        stream(bucket.stream(), bucket.subjects(), age, keeping)
    };
    let last = NewStream {
        republish: Some(NewRepublish {
            src: subjects.last().subjects(),
            dest: subjects.last_republished(),
        }),
        ..bucket(subjects.last(), nanos(LAST_VALUE))
    };
    let sessions = NewStream {
        republish: Some(NewRepublish {
            src: subjects.sessions().subjects(),
            dest: subjects.sessions_republished(),
        }),
        ..bucket(subjects.sessions(), age)
    };
    let leases = bucket(subjects.leases(), nanos(keeping.lease));
    let (log, _, _, leases) = try_join4(
        ensure(api, keeping, log),
        ensure(api, keeping, last),
        ensure(api, keeping, sessions),
        ensure(api, keeping, leases),
    )
    .await?;
    Ok(Streams {
        log: log.created,
        mailbox: u64::try_from(log.config.max_msgs_per_subject).unwrap_or(u64::MAX),
        lease: Duration::from_nanos(leases.config.max_age),
    })
}

/// As a bucket is made, but for what the caller changes.
fn stream(name: String, subjects: String, max_age: u64, keeping: &Keeping) -> NewStream {
    NewStream {
        name,
        subjects: [subjects],
        retention: "limits",
        max_msgs_per_subject: 1,
        max_age,
        discard: "new",
        storage: "file",
        num_replicas: keeping.replicas,
        duplicate_window: max_age.min(nanos(DEDUP_WINDOW)),
        // Newer servers allow 1,000 unless told otherwise.
        max_consumers: 100_000,
        max_msgs: -1,
        max_bytes: -1,
        allow_direct: true,
        allow_rollup_hdrs: true,
        deny_delete: true,
        republish: None,
    }
}

async fn ensure(api: &Api, keeping: &Keeping, wanted: NewStream) -> Result<StreamInfo, Missing> {
    let info = match api.stream(&wanted.name).await? {
        Some(info) => info,
        None if keeping.provision => api.create(&wanted).await?,
        None => return Err(Missing::Stream(wanted.name)),
    };
    let republished = info.config.republish.as_ref().map(|it| &it.dest);
    if !info.config.allow_direct || republished != wanted.republish.as_ref().map(|it| &it.dest) {
        return Err(Missing::Shape(wanted.name));
    }
    Ok(info)
}

/// Takes the session of the device over, with its channels if the server still has them.
async fn resume(
    to: &NatsConnector,
    options: &ConnectOptions,
    api: &Api,
    streams: &Streams,
    inbox: &str,
    answers: &mut Subscriber,
    watch: &mut Watch,
) -> Result<Log, TransportError> {
    let subjects = &to.config.subjects;
    let (bucket, key) = (
        subjects.sessions(),
        session_key(&options.user, options.device),
    );
    let client = &api.client;
    // From here on another connection of this device is noticed. Not on the key itself: there a
    // write is heard that is then refused as stale.
    let session = client.subscribe(subjects.session_watch(&key));
    let session = (watch.during(session).await?).map_err(|_| TransportError::lost())?;

    let entry = watch.during(api.get(&bucket, &key)).await??;
    let revision = entry.as_ref().map_or(0, |entry| entry.revision);
    let record = entry
        .and_then(|entry| entry.value)
        .and_then(|value| Record::decode(&value))
        .filter(|record| record.log == streams.log)
        .filter(|_| to.config.resume && revision >= to.shared.session_seen(&key))
        .and_then(|record| record.channels())
        .filter(|channels| channels.len() <= MAX_LANES);
    let mut resumed = record.is_some();

    let stood = to.shared.stood(&key, &streams.log);
    let stands = |path: &str| stood.as_ref()?.cursors.get(path).copied();
    let mut lanes: Vec<(Channel, u64, Subscriber)> = Vec::new();
    for (channel, cursor) in record.unwrap_or_default() {
        let path = path(&channel);
        let cursor = cursor.max(stands(&path).unwrap_or(0));
        let filter = subjects.filter(&path);
        let subscriber = watch.during(client.subscribe(filter)).await?;
        lanes.push((
            channel,
            cursor,
            subscriber.map_err(|_| TransportError::lost())?,
        ));
    }
    echo(client, inbox, answers, watch).await?;
    if !watch.denied.is_empty() {
        resumed = false;
        lanes.retain(|(channel, ..)| !watch.denied.contains(&subjects.filter(&path(channel))));
    }

    let mark = unique(client);
    let kept = lanes.iter().map(|(channel, cursor, _)| (channel, *cursor));
    let record = Record::new(&mark, &streams.log, kept).encode();
    let written = api.put(&bucket, &key, Some(record.into()), revision);
    let revision = match watch.during(written).await? {
        Err(ApiError::Stale) => {
            let words = "another connection of this device is being opened or closed";
            return Err(TransportError::new(DownReason::Other(words.to_owned())));
        }
        other => other?,
    };
    to.shared.saw_session(&key, revision);
    Ok(Log {
        way: Arc::default(),
        identity: streams.log.clone(),
        mailbox: streams.mailbox,
        bucket,
        key,
        mark,
        revision,
        session,
        lanes,
        resumed,
        careful: stood.is_some_and(|it| it.behind),
    })
}

impl Transport for NatsTransport {
    fn capabilities(&self) -> &'static Capabilities {
        self.inner.capabilities()
    }

    fn leases(&self) -> Option<Arc<dyn FencingLeases>> {
        self.leases.clone()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Inbound, TransportError>> {
        self.inner.poll_recv(cx)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.inner.poll_ready(cx)
    }

    fn start_send(&mut self, item: Outbound) -> Result<(), TransportError> {
        self.inner.start_send(item)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.inner.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.inner.poll_close(cx)
    }
}
