//! A TCP proxy that makes a line bad: between a client and any broker, in the process of the test,
//! without privileges.
//!
//! Guarantees: what [`Proxy::set`] says holds for connections that are open and for those to come;
//! bytes are never changed, dropped or reordered within a connection that lives on, as on a real
//! line; the address stays the same for the life of the proxy; memory per connection is bounded.

mod pump;
#[cfg(test)]
mod tests;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use crate::broker::free_port;

/// How long a port may stay taken before a proxy gives up listening on it again.
const REBIND: Duration = Duration::from_secs(20);

/// From whom to whom bytes go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the client to the broker.
    Up,
    /// From the broker to the client.
    Down,
}

/// How the line is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Line {
    /// Good.
    #[default]
    Open,
    /// Every connection is cut and no other comes about: nobody listens.
    Refused,
    /// Half-open: both sockets stay open and nothing moves, not even the end of the other side.
    /// What waits goes on when the line is open again.
    Dead,
    /// Bytes move in one direction only.
    OneWay(Direction),
    /// Every byte arrives so much later, in each direction.
    Slow(Duration),
    /// So many bytes per second, in each direction.
    Rate(u32),
    /// One byte at a time, so far apart.
    Dribble(Duration),
    /// A connection is reset after so many bytes in both directions together, mostly amid a
    /// frame. Counted from when the line is set, or the connection is made.
    ResetAfter(u64),
}

/// The state that a proxy shares with its connections.
#[derive(Clone, Copy, Default)]
struct State {
    line: Line,
    /// How often everything was cut.
    cuts: u64,
    /// How often the line was set.
    sets: u64,
}

/// A proxy before one address. It ends, and cuts everything, when dropped.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
    server: JoinHandle<()>,
}

impl core::fmt::Debug for State {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.line.fmt(f)
    }
}

impl Proxy {
    /// A good line to `broker`, on a free port.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(broker: SocketAddr) -> std::io::Result<Self> {
        let listener = loop {
            let address = (Ipv4Addr::LOCALHOST, free_port()?);
            match TcpListener::bind(address).await {
                // Somebody else was faster.
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
                other => break other?,
            }
        };
        let address = listener.local_addr()?;
        let state = Arc::new(watch::Sender::new(State::default()));
        let server = tokio::spawn(serve(listener, address, broker, state.subscribe()));
        Ok(Self {
            address,
            state,
            server,
        })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Makes the line so from now on.
    pub fn set(&self, line: Line) {
        self.state.send_modify(|state| {
            state.line = line;
            state.sets += 1;
        });
    }

    /// Resets every connection that is open. Others may be made at once.
    pub fn cut(&self) {
        self.state.send_modify(|state| state.cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Listens while the line takes connections. The connections are tasks of this one.
async fn serve(
    mut listener: TcpListener,
    address: SocketAddr,
    broker: SocketAddr,
    mut state: watch::Receiver<State>,
) {
    let mut connections = JoinSet::new();
    loop {
        if state.borrow_and_update().line == Line::Refused {
            drop(listener);
            while connections.join_next().await.is_some() {}
            let open = state.wait_for(|state| state.line != Line::Refused);
            if open.await.is_err() {
                return;
            }
            listener = listen_again(address).await;
        }
        tokio::select! {
            accepted = listener.accept() => {
                // Who went away before being accepted needs no connection.
                if let Ok((client, _)) = accepted {
                    connections.spawn(carry(client, broker, state.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
            }
        }
    }
}

async fn listen_again(address: SocketAddr) -> TcpListener {
    let deadline = Instant::now() + REBIND;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < deadline, "{address}: {error}"),
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// One connection, until either side ends it or the line does.
async fn carry(
    mut client: TcpStream,
    broker: SocketAddr,
    mut state: watch::Receiver<State>,
) -> std::io::Result<()> {
    let cuts = state.borrow_and_update().cuts;
    let Ok(mut server) = TcpStream::connect(broker).await else {
        // As if the broker had refused it.
        return client.set_zero_linger();
    };
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let mut cut = state.clone();
    let over = |state: &State| state.cuts != cuts || state.line == Line::Refused;
    let goodbye = tokio::select! {
        said = pump::both(&mut client, &mut server, state) => said.is_ok(),
        _ = cut.wait_for(over) => false,
    };
    if !goodbye {
        client.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    Ok(())
}
