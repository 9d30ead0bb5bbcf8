//! One client per user that has a page open, and the bot. A user whose last page closes goes
//! offline a moment later, so that messages wait for it as they would for a closed program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chat_client::store::RedbStore;
use chat_client::store::StoreError;
use chat_client::transport::Connector;
use chat_client::{Client, Identity, OpenError, keyfile};
use chat_core::config::Config;
use chat_core::id::{IdError, LobbyName, UserId, escape};
use tokio::sync::Mutex;

use super::bridge::Account;
use super::broker::Broker;

/// Everybody in the demo meets here.
const LOBBY: &str = "demo";
/// The bot's name; nobody else may use it.
pub const BOT: &str = "echo";
/// A page that reloads is back within this time.
const LINGER: Duration = Duration::from_secs(2);
const GOODBYE: Duration = Duration::from_secs(3);

/// Why a user could not be let in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The name breaks the rules for names.
    #[error(transparent)]
    Name(#[from] IdError),
    /// The bot's name.
    #[error("{BOT} is the bot; choose another name")]
    Taken,
    /// The user's folder cannot be used.
    #[error("the state folder cannot be used: {0}")]
    Folder(#[from] std::io::Error),
    /// Its key cannot be used.
    #[error(transparent)]
    Key(#[from] keyfile::KeyFileError),
    /// Its store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its client did not open.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Its client stopped at once.
    #[error(transparent)]
    Stopped(#[from] chat_client::ClientError),
    /// The demo is closing.
    #[error("the server is stopping; try again in a moment")]
    Closing,
}

/// Where clients come from.
#[derive(Debug)]
pub struct Host {
    state: PathBuf,
    broker: Broker,
    accounts: Mutex<Accounts>,
}

#[derive(Debug, Default)]
struct Accounts {
    open: BTreeMap<UserId, Seat>,
    closing: bool,
}

#[derive(Debug)]
struct Seat {
    account: Arc<Account>,
    pages: usize,
    /// Grows when a page comes, so that an old goodbye knows that it is void.
    visits: u64,
}

impl Host {
    /// A host that keeps users under `state` and connects them with `broker`.
    pub fn new(state: &Path, broker: Broker) -> Self {
        Self {
            state: state.to_owned(),
            broker,
            accounts: Mutex::new(Accounts::default()),
        }
    }

    /// Where everybody meets.
    pub fn lobby() -> LobbyName {
        LobbyName::new(LOBBY).expect("a constant, valid name")
    }

    /// Opens a client of `user` over its own folder.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn open(&self, user: &UserId) -> Result<Client, LoginError> {
        let folder = self.state.join("users").join(escape(user.as_str()));
        std::fs::create_dir_all(&folder)?;
        let key = keyfile::load_or_create(folder.join("device.key"))?;
        let store = RedbStore::open(folder.join("store.redb"))?;
        let client = Client::builder(Identity::new(user.clone(), key))
            .store(store)
            .transport(self.broker.clone())
            .config(Config::lan())
            .open()
            .await?;
        client.enter_lobby(&Self::lobby()).await?;
        Ok(client)
    }

    /// What its connections can do.
    pub fn capabilities(&self) -> &'static chat_client::transport::Capabilities {
        self.broker.capabilities()
    }

    /// A page of `name` is here: its account, opened when this is its first page.
    ///
    /// # Errors
    /// [`LoginError`].
    pub async fn enter(&self, name: &str) -> Result<Arc<Account>, LoginError> {
        let user = UserId::new(name)?;
        if user.as_str() == BOT {
            return Err(LoginError::Taken);
        }
        let mut accounts = self.accounts.lock().await;
        if accounts.closing {
            return Err(LoginError::Closing);
        }
        if let Some(seat) = accounts.open.get_mut(&user) {
            seat.pages += 1;
            seat.visits += 1;
            return Ok(seat.account.clone());
        }
        let client = self.open(&user).await?;
        let account = Account::start(client).await?;
        let seat = Seat {
            account: account.clone(),
            pages: 1,
            visits: 1,
        };
        accounts.open.insert(user, seat);
        Ok(account)
    }

    /// A page of `user` is gone. After the last one, and a moment, its client stops.
    pub async fn exit(self: Arc<Self>, user: UserId) {
        let mut accounts = self.accounts.lock().await;
        let Some(seat) = accounts.open.get_mut(&user) else {
            return;
        };
        seat.pages -= 1;
        if seat.pages > 0 {
            return;
        }
        let visits = seat.visits;
        drop(accounts);
        tokio::spawn(async move {
            tokio::time::sleep(LINGER).await;
            let mut accounts = self.accounts.lock().await;
            let stayed = accounts
                .open
                .get(&user)
                .is_some_and(|seat| seat.pages == 0 && seat.visits == visits);
            if stayed && let Some(seat) = accounts.open.remove(&user) {
                // Under the lock: the next login must find the store free.
                seat.account.stop(GOODBYE).await;
            }
        });
    }

    /// Stops every client; nobody is let in any more.
    pub async fn close(&self) {
        let mut accounts = self.accounts.lock().await;
        accounts.closing = true;
        for (_, seat) in core::mem::take(&mut accounts.open) {
            seat.account.stop(GOODBYE).await;
        }
    }
}
