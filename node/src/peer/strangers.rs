//! Those who have not (yet) proved the secret: how many connections of theirs there may be at once, and how
//! many attempts there have been. They get no byte but those of a handshake.

use quinn::Incoming;
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// QUIC connections that have not greeted; each is gone after 2 s (`accept::GREETING_TIME`). Some 50 KB
/// each, so that all of them are 13 MB.
const UNPROVED_MAX: usize = 256;
/// Of one address, so that one stranger leaves room for others. A node dials three lanes at a time.
const UNPROVED_PER_ADDRESS_MAX: usize = 64;
/// From so many on, whoever comes must show that it receives what is sent to its address (RFC 9000, 8.1.2):
/// addresses that are made up then cost nothing. It costs a peer one round trip.
const UNPROVED_UNTIL_RETRY: usize = 64;

/// Where strangers were seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum At {
    Datagram,
    Connection,
    Lifeline,
}

impl At {
    pub(crate) const ALL: [Self; 3] = [Self::Datagram, Self::Connection, Self::Lifeline];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Datagram => "datagram",
            Self::Connection => "connection",
            Self::Lifeline => "lifeline",
        }
    }
}

/// What was seen of strangers: of nodes whose secret file is not up to date, too.
#[derive(Debug, Default)]
pub(crate) struct Strangers {
    seen: [AtomicU64; At::ALL.len()],
    last: Mutex<Option<SocketAddr>>,
    unproved: Mutex<Unproved>,
}

#[derive(Debug, Default)]
struct Unproved {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A connection's place among those that have not proved the secret, until it has, or is gone.
#[derive(Debug)]
pub(super) struct Place {
    strangers: Arc<Strangers>,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut unproved = self.strangers.unproved();
        unproved.all -= 1;
        if let Some(count) = unproved.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                unproved.by_address.remove(&self.address);
            }
        }
    }
}

impl Strangers {
    /// How many attempts there have been, and where the last one of any kind came from.
    pub(crate) fn seen(&self, at: At) -> u64 {
        self.seen[at as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn last(&self) -> Option<SocketAddr> {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, at: At, from: SocketAddr) {
        self.seen[at as usize].fetch_add(1, Ordering::Relaxed);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
    }

    /// Lets a connection begin its handshake, or not: then it is asked to show its address, or ignored. A peer
    /// that is ignored sends its first packet again 60 ms later, and so on until there is room.
    pub(super) fn admit(self: &Arc<Self>, incoming: Incoming) -> Option<(Incoming, Place)> {
        let address = incoming.remote_address().ip();
        let is_shown = incoming.remote_address_validated() || !incoming.may_retry();
        match self.place(address, is_shown) {
            Ok(place) => Some((incoming, place)),
            Err(Refused::ShowAddress) => {
                let _ = incoming.retry(); // whose only error is that it may not, which was asked
                None
            }
            Err(Refused::Full) => {
                incoming.ignore();
                None
            }
        }
    }

    fn place(self: &Arc<Self>, address: IpAddr, is_shown: bool) -> Result<Place, Refused> {
        let mut unproved = self.unproved();
        if unproved.all >= UNPROVED_UNTIL_RETRY && !is_shown {
            return Err(Refused::ShowAddress);
        }
        let of_address = unproved.by_address.get(&address).copied().unwrap_or(0);
        if unproved.all >= UNPROVED_MAX || of_address >= UNPROVED_PER_ADDRESS_MAX {
            return Err(Refused::Full);
        }
        unproved.all += 1;
        unproved.by_address.insert(address, of_address + 1);
        Ok(Place { strangers: self.clone(), address })
    }

    fn unproved(&self) -> MutexGuard<'_, Unproved> {
        self.unproved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Refused {
    ShowAddress,
    Full,
}

#[cfg(test)]
mod tests;
