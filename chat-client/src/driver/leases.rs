//! Outside leases of groups, where the transport's broker grants them ([`FencingLeases`]).
//!
//! Three times per time to live: the lease of every group that we lead is taken or renewed; of
//! every group whose leader fell silent it is asked who holds it. What comes of that goes to the
//! endpoint as a hint. Where there is neither, nothing wakes the client. Nothing waits for the service, and nothing rests on it: a call that is not
//! answered in time is dropped and says nothing, and a lease that could not be renewed in its time
//! counts as lost. They end with their connection.
//!
//! Bounds: [`MAX_CALLS`] calls under way; one waiting per group.

use core::pin::Pin;
use core::task::{Context, Poll};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use chat_core::Endpoint;
use chat_core::group::{LeaseHint, LeaseNeed};
use chat_core::id::{DeviceId, GroupId};
use chat_core::time::Timestamp;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, timeout};

use crate::transport::{FencingLease, FencingLeases, LeaseError};

/// Calls under way at once.
const MAX_CALLS: usize = 16;
/// Calls per time to live, so that a lease outlives two that fail.
const CALLS_PER_TTL: u32 = 3;

/// What a call came to.
enum Said {
    Held(FencingLease),
    /// By whom it is held, if by anybody.
    NotOurs(Option<DeviceId>),
    Nothing,
}

struct Service {
    grants: Arc<dyn FencingLeases>,
    calls: JoinSet<(GroupId, Said)>,
    waiting: VecDeque<(GroupId, LeaseNeed)>,
    look: Pin<Box<Sleep>>,
    /// What `look` is set for.
    due: Option<Timestamp>,
    /// Nothing is looked at before.
    next: Instant,
}

pub(super) struct Leases {
    me: DeviceId,
    service: Option<Service>,
    /// Ours, and until when.
    held: BTreeMap<GroupId, (FencingLease, Instant)>,
}

impl Leases {
    pub(super) fn new(me: DeviceId) -> Self {
        Self {
            me,
            service: None,
            held: BTreeMap::new(),
        }
    }

    /// A connection is up; `None` when it grants no leases.
    pub(super) fn begin(&mut self, grants: Option<Arc<dyn FencingLeases>>) {
        self.service = grants.map(|grants| Service {
            grants,
            calls: JoinSet::new(),
            waiting: VecDeque::new(),
            look: Box::pin(tokio::time::sleep_until(Instant::now())),
            due: None,
            next: Instant::now(),
        });
    }

    /// The connection is over. A lease may still be held; the next connection takes it anew.
    pub(super) fn end(&mut self, endpoint: &mut Endpoint, now: Timestamp) {
        self.service = None;
        for group in core::mem::take(&mut self.held).into_keys() {
            endpoint.handle_fence_hint(group, LeaseHint::Lost, now);
        }
    }

    /// Asks what is to be asked and passes on what was answered; true when it did.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        endpoint: &mut Endpoint,
        now: Timestamp,
    ) -> bool {
        let mut any = false;
        while let Some(service) = &mut self.service
            && let Poll::Ready(Some(answer)) = service.calls.poll_join_next(cx)
        {
            any = true;
            // A service that panics says nothing.
            if let Ok((group, said)) = answer {
                self.handle(group, said, endpoint, now);
            }
        }
        let Some(service) = &mut self.service else {
            return any;
        };
        let pause = service.grants.ttl() / CALLS_PER_TTL;
        loop {
            let due = if self.held.is_empty() && service.waiting.is_empty() {
                endpoint.lease_due()
            } else {
                Some(Timestamp::ZERO)
            };
            let Some(due) = due else { break };
            if service.due != Some(due) {
                service.due = Some(due);
                let at = Instant::now() + due.saturating_since(now);
                service.look.as_mut().reset(at.max(service.next));
            }
            if service.look.as_mut().poll(cx).is_pending() {
                break;
            }
            any = true;
            service.due = None;
            service.next = Instant::now() + pause;
            let mut needs: BTreeMap<_, _> = endpoint.lease_needs(now).into_iter().collect();
            let leads = |group: &GroupId| needs.get(group) == Some(&LeaseNeed::Hold);
            let over: Vec<_> = self
                .held
                .iter()
                .filter(|(group, (_, until))| !leads(group) || *until <= Instant::now())
                .map(|(group, _)| *group)
                .collect();
            for group in over {
                if let Some((lease, _)) = self.held.remove(&group)
                    && !leads(&group)
                {
                    // Whoever leads now need not wait for its end. If that fails, it waits.
                    let grants = service.grants.clone();
                    service.calls.spawn(async move {
                        timeout(pause, grants.release(lease)).await.ok();
                        (group, Said::Nothing)
                    });
                } else {
                    endpoint.handle_fence_hint(group, LeaseHint::Lost, now);
                }
            }
            // What still waits is asked first, if it is still wanted.
            let mut still = |(group, need): &(GroupId, LeaseNeed)| {
                needs.get(group) == Some(need) && needs.remove(group).is_some()
            };
            service.waiting.retain(|need| still(need));
            service.waiting.extend(needs);
        }
        while service.calls.len() < MAX_CALLS
            && let Some((group, need)) = service.waiting.pop_front()
        {
            any = true;
            let held = self.held.get(&group).map(|(lease, _)| lease.clone());
            let (grants, me) = (service.grants.clone(), self.me);
            service.calls.spawn(async move {
                let call = ask(&*grants, group, need, held, me);
                let said = timeout(pause, call).await.unwrap_or(Said::Nothing);
                (group, said)
            });
        }
        any
    }

    fn handle(&mut self, group: GroupId, said: Said, endpoint: &mut Endpoint, now: Timestamp) {
        let hint = match said {
            Said::Held(lease) => {
                let Some(service) = &self.service else {
                    return;
                };
                let until = Instant::now() + service.grants.ttl();
                self.held.insert(group, (lease, until));
                LeaseHint::Held(self.me)
            }
            Said::NotOurs(by) => {
                self.held.remove(&group);
                by.map_or(LeaseHint::Lost, LeaseHint::Held)
            }
            Said::Nothing => return,
        };
        tracing::trace!(target: "chat::driver", ?group, ?hint, "a lease");
        endpoint.handle_fence_hint(group, hint, now);
    }
}

async fn ask(
    grants: &dyn FencingLeases,
    group: GroupId,
    need: LeaseNeed,
    held: Option<FencingLease>,
    me: DeviceId,
) -> Said {
    if need != LeaseNeed::Hold {
        return grants
            .holder(group)
            .await
            .map_or(Said::Nothing, Said::NotOurs);
    }
    let got = match held {
        Some(lease) => grants.renew(&lease).await,
        None => grants.acquire(group, me).await,
    };
    match got {
        Ok(lease) => Said::Held(lease),
        Err(LeaseError::Held { by }) => Said::NotOurs(Some(by)),
        Err(LeaseError::Stale { .. }) => Said::NotOurs(None),
        Err(LeaseError::Unavailable(_)) => Said::Nothing,
    }
}
