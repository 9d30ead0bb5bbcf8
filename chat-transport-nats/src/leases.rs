//! Leases of groups: a key of a bucket whose values the server forgets after the time to live.
//! Acquiring, renewing and giving back are writes that name the revision they replace.

use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use chat_client::transport::{FencingLease, FencingLeases, LeaseError};
use chat_core::id::{DeviceId, GroupId};

use crate::api::{Api, ApiError};
use crate::subject::{Bucket, hex, lease_key, unhex};

/// The way to the server for as long as the connection lasts: whoever keeps the leases must not
/// keep the connection.
pub(crate) type Way = Arc<Mutex<Option<Api>>>;

#[derive(Debug)]
pub(crate) struct Leases {
    pub(crate) way: Way,
    pub(crate) bucket: Bucket,
    pub(crate) ttl: Duration,
}

impl From<ApiError> for LeaseError {
    fn from(error: ApiError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl Leases {
    fn api(&self) -> Result<Api, ApiError> {
        let way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        way.clone().ok_or(ApiError::Gone)
    }

    /// Who holds it, and the revision to replace.
    async fn look(&self, api: &Api, key: &str) -> Result<(Option<DeviceId>, u64), LeaseError> {
        let Some(entry) = api.get(&self.bucket, key).await? else {
            return Ok((None, 0));
        };
        let Some(value) = entry.value else {
            return Ok((None, entry.revision));
        };
        let holder = core::str::from_utf8(&value).ok().and_then(unhex);
        let holder = holder.ok_or_else(|| LeaseError::Unavailable("the key is not ours".into()))?;
        Ok((Some(DeviceId(holder)), entry.revision))
    }
}

#[async_trait::async_trait]
impl FencingLeases for Leases {
    fn ttl(&self) -> Duration {
        self.ttl
    }

    async fn holder(&self, group: GroupId) -> Result<Option<DeviceId>, LeaseError> {
        let (by, _revision) = self.look(&self.api()?, &lease_key(group)).await?;
        Ok(by)
    }

    async fn acquire(&self, group: GroupId, holder: DeviceId) -> Result<FencingLease, LeaseError> {
        let (api, key) = (self.api()?, lease_key(group));
        let (by, expected) = self.look(&api, &key).await?;
        if let Some(by) = by.filter(|by| *by != holder) {
            return Err(LeaseError::Held { by });
        }
        let value = Bytes::from(hex(&holder.0));
        match api.put(&self.bucket, &key, Some(value), expected).await {
            Ok(revision) => Ok(FencingLease {
                group,
                holder,
                revision,
            }),
            Err(ApiError::Stale) => match self.look(&api, &key).await? {
                (Some(by), _) if by != holder => Err(LeaseError::Held { by }),
                _ => Err(LeaseError::Unavailable("it changes hands just now".into())),
            },
            Err(error) => Err(error.into()),
        }
    }

    async fn renew(&self, lease: &FencingLease) -> Result<FencingLease, LeaseError> {
        let value = Bytes::from(hex(&lease.holder.0));
        let revision = self.replace(lease, Some(value)).await?;
        Ok(FencingLease {
            revision,
            ..lease.clone()
        })
    }

    async fn release(&self, lease: FencingLease) -> Result<(), LeaseError> {
        self.replace(&lease, None).await.map(|_revision| ())
    }
}

impl Leases {
    async fn replace(&self, lease: &FencingLease, value: Option<Bytes>) -> Result<u64, LeaseError> {
        let (api, key) = (self.api()?, lease_key(lease.group));
        let expected = lease.revision;
        match api.put(&self.bucket, &key, value, expected).await {
            Err(ApiError::Stale) => Err(LeaseError::Stale { revision: expected }),
            other => Ok(other?),
        }
    }
}
