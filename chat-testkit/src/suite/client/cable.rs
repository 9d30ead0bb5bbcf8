//! A cable between a client and any transport, that can be cut, or refuse what is written to
//! conversations.

use core::task::{Context, Poll, Waker};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chat_client::transport::{
    Capabilities, ConnectOptions, Connector, FencingLeases, Inbound, Outbound, SendOutcome,
    Transport, TransportError,
};
use chat_core::channel::Channel;

/// A connector whose connections can be made to die without a goodbye. Clones are the same cable.
#[derive(Debug)]
pub struct Cable<C> {
    inner: Arc<C>,
    line: Arc<Mutex<Line>>,
}

impl<C> Clone for Cable<C> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            line: self.line.clone(),
        }
    }
}

#[derive(Default)]
struct Line {
    cut: bool,
    /// Counts connections, so that an earlier one is over for good.
    number: u64,
    plugged: Option<Box<dyn Transport>>,
    barred: bool,
    /// What the cable answers itself, for this connection.
    answers: VecDeque<Inbound>,
    waker: Option<Waker>,
}

impl core::fmt::Debug for Line {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Line")
            .field("cut", &self.cut)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<C: Connector> Cable<C> {
    /// A cable to what `inner` connects to.
    pub fn new(inner: C) -> Self {
        Self {
            inner: Arc::new(inner),
            line: Arc::default(),
        }
    }

    /// Cuts it: the connection ends at once, and none comes up.
    pub fn cut(&self) {
        let mut line = lock(&self.line);
        line.cut = true;
        let gone = line.plugged.take();
        if let Some(waker) = line.waker.take() {
            waker.wake();
        }
        drop(line);
        drop(gone);
    }

    /// From now on whatever is written to conversations is refused for good, or no longer.
    pub fn bar(&self, barred: bool) {
        lock(&self.line).barred = barred;
    }

    /// Mends it.
    pub fn mend(&self) {
        lock(&self.line).cut = false;
    }
}

#[async_trait::async_trait]
impl<C: Connector> Connector for Cable<C> {
    fn capabilities(&self) -> &'static Capabilities {
        self.inner.capabilities()
    }

    async fn connect(&self, options: ConnectOptions) -> Result<Box<dyn Transport>, TransportError> {
        if lock(&self.line).cut {
            return Err(TransportError::lost());
        }
        let transport = self.inner.connect(options).await?;
        let capabilities = transport.capabilities();
        let leases = transport.leases();
        let mut line = lock(&self.line);
        if line.cut {
            return Err(TransportError::lost());
        }
        line.number += 1;
        line.answers.clear();
        line.plugged = Some(transport);
        Ok(Box::new(Plug {
            line: self.line.clone(),
            number: line.number,
            capabilities,
            leases,
        }))
    }
}

/// One connection over a cable.
struct Plug {
    line: Arc<Mutex<Line>>,
    number: u64,
    capabilities: &'static Capabilities,
    leases: Option<Arc<dyn FencingLeases>>,
}

impl Plug {
    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut dyn Transport, &mut Context<'_>) -> Poll<Result<T, TransportError>>,
    ) -> Poll<Result<T, TransportError>> {
        let mut line = lock(&self.line);
        line.waker = Some(cx.waker().clone());
        let number = line.number;
        match &mut line.plugged {
            Some(transport) if number == self.number => poll(&mut **transport, cx),
            _ => Poll::Ready(Err(TransportError::lost())),
        }
    }
}

impl Transport for Plug {
    fn capabilities(&self) -> &'static Capabilities {
        self.capabilities
    }

    fn leases(&self) -> Option<Arc<dyn FencingLeases>> {
        self.leases.clone()
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Inbound, TransportError>> {
        let mut line = lock(&self.line);
        if line.number == self.number
            && line.plugged.is_some()
            && let Some(answer) = line.answers.pop_front()
        {
            return Poll::Ready(Ok(answer));
        }
        drop(line);
        self.poll(cx, |it, cx| it.poll_recv(cx))
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.poll(cx, |it, cx| it.poll_ready(cx))
    }

    fn start_send(&mut self, item: Outbound) -> Result<(), TransportError> {
        let mut line = lock(&self.line);
        let number = line.number;
        if line.barred
            && number == self.number
            && line.plugged.is_some()
            && let Outbound::Send {
                token,
                channel: Channel::Conv(_) | Channel::Group(_),
                ..
            } = item
        {
            let outcome = SendOutcome::denied("the cable is barred");
            line.answers.push_back(Inbound::Sent { token, outcome });
            if let Some(waker) = line.waker.take() {
                waker.wake();
            }
            return Ok(());
        }
        match &mut line.plugged {
            Some(transport) if number == self.number => transport.start_send(item),
            _ => Err(TransportError::lost()),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.poll(cx, |it, cx| it.poll_flush(cx))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.poll(cx, |it, cx| it.poll_close(cx))
    }
}

impl Drop for Plug {
    fn drop(&mut self) {
        let mut line = lock(&self.line);
        if line.number == self.number {
            let gone = line.plugged.take();
            drop(line);
            drop(gone);
        }
    }
}
