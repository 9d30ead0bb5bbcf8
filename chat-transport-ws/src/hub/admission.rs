//! How many connections there are, in all and per address. Counted from the accept on, so that
//! sockets that never finish a handshake count as well.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::limits::Limits;

#[derive(Debug, Default)]
pub(super) struct Admission(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    all: usize,
    by_ip: HashMap<IpAddr, usize>,
}

/// One place; dropping it frees it.
#[derive(Debug)]
pub(super) struct Place {
    admission: Arc<Admission>,
    ip: Option<IpAddr>,
}

impl Admission {
    /// `None` when there is no place.
    pub(super) fn admit(self: &Arc<Self>, ip: Option<IpAddr>, limits: &Limits) -> Option<Place> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.all >= limits.connections {
            return None;
        }
        if let Some(ip) = ip {
            let here = counts.by_ip.entry(ip).or_default();
            if *here >= limits.connections_per_ip {
                return None;
            }
            *here += 1;
        }
        counts.all += 1;
        Some(Place {
            admission: Arc::clone(self),
            ip,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = (self.admission.0.lock()).unwrap_or_else(PoisonError::into_inner);
        counts.all -= 1;
        if let Some(ip) = self.ip
            && let Some(here) = counts.by_ip.get_mut(&ip)
        {
            *here -= 1;
            if *here == 0 {
                counts.by_ip.remove(&ip);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_in_all_and_per_address_and_come_free() {
        let limits = Limits {
            connections: 2,
            connections_per_ip: 1,
            ..Limits::default()
        };
        let admission = Arc::new(Admission::default());
        let ip = |n| Some(IpAddr::from([127, 0, 0, n]));
        let one = admission.admit(ip(1), &limits).unwrap();
        assert!(admission.admit(ip(1), &limits).is_none());
        let _two = admission.admit(ip(2), &limits).unwrap();
        assert!(admission.admit(ip(3), &limits).is_none());
        drop(one);
        assert!(admission.admit(ip(1), &limits).is_some());
    }
}
