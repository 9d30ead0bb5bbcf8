//! What the benches share: endpoints joined in memory, with signatures real or left out (they are
//! measured apart), and everything durable at once.

mod busy;
mod crowd;
mod time;

pub use busy::Busy;
pub use crowd::Crowd;
pub use time::{Cpu, ThreadTime, criterion};

use std::sync::Arc;
use std::time::Duration;

use chat_core::channel::Channel;
use chat_core::config::Config;
use chat_core::content::Content;
use chat_core::delivery::DeliveryEvent;
use chat_core::id::{ConvId, TxnId, UserId};
use chat_core::identity::{DeviceKey, Ed25519, PublicKey, Signature, Signer, Verifier};
use chat_core::link::LinkEvent;
use chat_core::sealer::Plain;
use chat_core::session::SessionEvent;
use chat_core::time::{Timestamp, UnixMillis};
use chat_core::{Endpoint, Event, Fate, Identity, Output};

/// Signs nothing and believes everything.
#[derive(Debug)]
pub struct NoCrypto(pub PublicKey);

impl Signer for NoCrypto {
    fn public_key(&self) -> PublicKey {
        self.0
    }

    fn sign(&self, _message: &[u8]) -> Signature {
        Signature([0; 64])
    }
}

impl Verifier for NoCrypto {
    fn verify(&self, _key: &PublicKey, _message: &[u8], _signature: &Signature) -> bool {
        true
    }
}

/// Whether signatures are part of what is measured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crypto {
    /// Ed25519, strict.
    Real,
    /// None.
    Off,
}

/// A budget that no bench exhausts, otherwise the defaults.
pub fn config() -> Config {
    let mut config = Config::default();
    config.budget.frames_per_second = u32::MAX;
    config.budget.burst = u32::MAX;
    config.session.max_peers = 1_000_000;
    config.delivery.max_outbox = 1_000_000;
    config.delivery.retransmit_rate = 1_000_000;
    config.budget.max_senders = 1_000_000;
    config.budget.max_pins = 1_000_000;
    config.presence.max_watched = 1_000_000;
    config
}

/// An endpoint of `user`, connected and caught up.
pub fn endpoint(user: &str, number: u8, crypto: Crypto) -> Endpoint {
    let key = DeviceKey::from_secret([number; 32]);
    let public = key.public_key();
    let (signer, verifier): (Arc<dyn Signer>, Arc<dyn Verifier>) = match crypto {
        Crypto::Real => (Arc::new(key), Arc::new(Ed25519)),
        Crypto::Off => (Arc::new(NoCrypto(public)), Arc::new(NoCrypto(public))),
    };
    let identity = Identity {
        user: UserId::new(user).expect("bench names are valid"),
        signer,
        verifier,
        sealer: Box::new(Plain),
    };
    let now = Timestamp::from_secs(1);
    let wall = UnixMillis(1_800_000_000_000);
    let mut endpoint = Endpoint::open(identity, config(), [number; 32], [], wall, now)
        .expect("an empty store opens");
    endpoint.connect(now);
    endpoint
}

/// What a drained endpoint wanted sent and told.
#[derive(Debug, Default)]
pub struct Drained {
    /// Frames.
    pub frames: Vec<(Channel, bytes::Bytes)>,
    /// Events.
    pub events: Vec<Event>,
    /// Broker acknowledgements owed.
    pub transmits: Vec<chat_core::TransmitId>,
}

impl Drained {
    /// Empty again, with the room it has.
    pub fn clear(&mut self) {
        self.frames.clear();
        self.events.clear();
        self.transmits.clear();
    }
}

/// True when criterion measures, false when it only tries each bench once (`cargo test`).
pub fn measuring() -> bool {
    std::env::args().any(|arg| arg == "--bench")
}

/// Drains `endpoint`; every row is durable at once, every channel subscribed at once.
pub fn drain(endpoint: &mut Endpoint, now: Timestamp, into: &mut Drained) {
    while let Some(output) = endpoint.poll_output() {
        match output {
            Output::Persist { id, .. } => endpoint.handle_persisted(id, now),
            Output::Transmit(transmit) => {
                into.transmits.push(transmit.id);
                into.frames.push((transmit.channel, transmit.bytes));
            }
            Output::Subscribe(channel) => {
                endpoint.handle_link(&LinkEvent::Subscribed(channel), now);
            }
            Output::Connect { .. } => {
                let up = LinkEvent::Up {
                    resumed: false,
                    marks_backlog: true,
                };
                endpoint.handle_link(&up, now);
                endpoint.handle_link(&LinkEvent::CaughtUp, now);
            }
            Output::Event { event, .. } => into.events.push(event),
            Output::Unsubscribe(_) | Output::Disconnect => {}
            other => unreachable!("an output the benches do not know: {other:?}"),
        }
    }
}

/// Two endpoints with an open session between them.
#[derive(Debug)]
pub struct Pair {
    /// Asked.
    pub alice: Endpoint,
    /// Accepted.
    pub bob: Endpoint,
    /// Their conversation.
    pub conv: ConvId,
    /// The time.
    pub now: Timestamp,
    txn: u128,
}

impl Pair {
    /// Opens a session.
    pub fn open(crypto: Crypto) -> Self {
        let mut pair = Self::apart(crypto);
        pair.negotiate();
        pair
    }

    /// Both connected, no session yet.
    pub fn apart(crypto: Crypto) -> Self {
        let mut pair = Self {
            alice: endpoint("alice", 1, crypto),
            bob: endpoint("bob", 2, crypto),
            conv: ConvId([0; 32]),
            now: Timestamp::from_secs(2),
            txn: 0,
        };
        pair.settle();
        pair
    }

    /// Alice asks, Bob accepts, both know.
    pub fn negotiate(&mut self) {
        let bob = self.bob.user().clone();
        self.alice
            .request(&bob, "", self.now)
            .expect("nothing stands in the way");
        for event in self.settle() {
            if let Event::Session(SessionEvent::Requested { invite, .. }) = event {
                self.conv = self
                    .bob
                    .accept(invite, self.now)
                    .expect("the request stands");
            }
        }
        self.settle();
        assert_ne!(self.conv, ConvId([0; 32]), "the session opened");
    }

    /// Carries frames both ways until it is quiet at this moment; returns the events of both.
    pub fn settle(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        loop {
            let mut quiet = true;
            for from_alice in [true, false] {
                let (from, to) = if from_alice {
                    (&mut self.alice, &mut self.bob)
                } else {
                    (&mut self.bob, &mut self.alice)
                };
                let mut drained = Drained::default();
                drain(from, self.now, &mut drained);
                events.append(&mut drained.events);
                for id in drained.transmits {
                    from.handle_acked(id, Fate::Taken, self.now);
                }
                for (channel, bytes) in drained.frames {
                    quiet = false;
                    to.handle_inbound(&channel, &bytes, true, self.now);
                }
            }
            if quiet {
                return events;
            }
        }
    }

    /// A fresh transaction id.
    pub fn txn(&mut self) -> TxnId {
        self.txn += 1;
        TxnId(self.txn.to_be_bytes())
    }

    /// Alice says something of `len` bytes; it is delivered, acknowledged and its receipt told.
    pub fn cycle(&mut self, len: usize) {
        self.burst(1, len);
    }

    /// The same with `n` messages that she says before anything else happens.
    pub fn burst(&mut self, n: usize, len: usize) {
        for _ in 0..n {
            let txn = self.txn();
            let content = Content::text("x".repeat(len));
            self.alice
                .send(self.conv, txn, content, self.now)
                .expect("the session is open");
        }
        let mut received = Vec::new();
        for event in self.settle() {
            if let Event::Delivery(DeliveryEvent::Received(message)) = event {
                received.push(message.pos);
            }
        }
        assert_eq!(received.len(), n, "all arrived");
        self.bob
            .acknowledge(self.conv, *received.last().expect("some arrived"), self.now);
        // The acknowledgement is delayed on purpose; time passes.
        self.now = self.now + Duration::from_millis(250);
        self.bob.handle_timeout(self.now);
        self.alice.handle_timeout(self.now);
        self.settle();
        assert_eq!(self.alice.stats().outbox, 0, "all is acknowledged");
    }
}
