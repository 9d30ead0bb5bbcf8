//! How a hub is set up and started.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpSocket};

use super::auth::{AccessRules, AllowAll, Authenticator, OwnerRules};
use super::handshake::Origins;
use super::limits::Limits;
use super::server::{Hub, HubHandle, Settings, wall_now};
use super::state::Machine;
use super::store::{Disk, RedbDisk, StoreError, spawn_writer};

/// Small, so that a stalled reader shows after some 200 KB and not after megabytes.
const SEND_BUFFER: u32 = 64 * 1024;
const BACKLOG: u32 = 1024;

/// Why a hub does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Nothing was said about who may connect.
    #[error("choose who may connect: authenticator(..), or allow_all() for a demo")]
    NoAuthenticator,
    /// Nothing was said about where frames are kept.
    #[error("choose where frames are kept: store(path), or in_memory()")]
    NoStore,
    /// The address cannot be listened on.
    #[error("cannot listen on {address} ({source}); choose another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The system gives us no thread.
    #[error("no thread for the store ({source}); free resources and try again")]
    Thread {
        /// What the system says.
        source: std::io::Error,
    },
}

#[derive(Debug, Clone)]
enum Keep {
    Memory,
    File(PathBuf),
}

/// How a hub is set up.
#[derive(Debug, Clone)]
#[must_use]
pub struct HubBuilder {
    limits: Limits,
    authenticator: Option<Arc<dyn Authenticator>>,
    access: Arc<dyn AccessRules>,
    keep: Option<Keep>,
    origins: Origins,
    path: String,
}

impl HubBuilder {
    pub(super) fn new() -> Self {
        Self {
            limits: Limits::default(),
            authenticator: None,
            access: Arc::new(OwnerRules),
            keep: None,
            origins: Origins::default(),
            path: "/hub".to_owned(),
        }
    }

    /// Asks `authenticator` about every connection.
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticator = Some(Arc::new(authenticator));
        self
    }

    /// Lets everybody be whoever they say. For demos and tests on one machine.
    pub fn allow_all(self) -> Self {
        self.authenticator(AllowAll)
    }

    /// Other rules than [`OwnerRules`].
    pub fn access(mut self, rules: impl AccessRules) -> Self {
        self.access = Arc::new(rules);
        self
    }

    /// Keeps nothing when the process ends: "accepted" then means that the hub's memory has it.
    pub fn in_memory(mut self) -> Self {
        self.keep = Some(Keep::Memory);
        self
    }

    /// Keeps durable frames in this file; "accepted" means that it is on disk. The mailboxes are
    /// also held in memory, within [`Limits::stored_bytes`].
    pub fn store(mut self, path: impl Into<PathBuf>) -> Self {
        self.keep = Some(Keep::File(path.into()));
        self
    }

    /// Other limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Lets web pages of this origin connect, such as `https://chat.example`. May be repeated.
    pub fn allow_origin(mut self, origin: &str) -> Self {
        self.origins.listed.insert(origin.to_ascii_lowercase());
        self
    }

    /// Lets every web page connect: only where tokens are no cookies.
    pub fn allow_any_origin(mut self) -> Self {
        self.origins.any = true;
        self
    }

    /// The path of the upgrade; `/hub` unless said.
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// Starts the hub without a listener, for [`Hub::serve_upgraded`] and [`Hub::serve_socket`].
    /// Must be called in a tokio runtime.
    ///
    /// # Errors
    /// [`HubError`].
    pub fn start(self) -> Result<Hub, HubError> {
        match self.keep.clone().ok_or(HubError::NoStore)? {
            Keep::Memory => self.launch(None),
            Keep::File(path) => self.launch(Some(Box::new(RedbDisk::open(&path)?))),
        }
    }

    pub(super) fn launch(self, disk: Option<Box<dyn Disk>>) -> Result<Hub, HubError> {
        let authenticator = self.authenticator.ok_or(HubError::NoAuthenticator)?;
        let mut limits = self.limits;
        limits.max_frame = limits.max_frame.min(crate::proto::MAX_FRAME);
        let mut machine = Machine::new(limits.clone(), self.access, disk.is_some());
        let writer = match disk {
            None => None,
            Some(disk) => {
                let wall = wall_now();
                disk.read(&mut |key, value| machine.restore(key, value, wall))?;
                Some(spawn_writer(disk).map_err(|source| HubError::Thread { source })?)
            }
        };
        let settings = Settings {
            limits,
            authenticator,
            origins: self.origins,
            path: self.path,
        };
        Ok(Hub::run(machine, settings, writer))
    }

    /// Starts the hub and listens on `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn bind(self, address: SocketAddr) -> Result<HubHandle, HubError> {
        let listener = listen(address).map_err(|source| HubError::Listen { address, source })?;
        let local_addr =
            (listener.local_addr()).map_err(|source| HubError::Listen { address, source })?;
        Ok(HubHandle::run(self.start()?, listener, local_addr))
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = match address.ip() {
        IpAddr::V4(_) => TcpSocket::new_v4()?,
        IpAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    // Accepted sockets inherit it.
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}
