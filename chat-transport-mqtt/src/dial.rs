//! From an address to a stream of bytes: TCP, then TLS, then WebSocket. The caller's deadline
//! covers all of it; dropping the future drops the socket.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::address::Address;

/// What carries MQTT.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
pub(crate) type Carrier = Box<dyn Duplex>;

pub(crate) async fn dial(address: &Address, tls: &crate::tls::Tls) -> io::Result<Carrier> {
    let tcp = TcpStream::connect((&*address.host, address.port)).await?;
    tcp.set_nodelay(true)?;
    let mut carrier: Carrier = Box::new(tcp);
    if address.tls {
        carrier = tls.wrap(&address.host, carrier).await?;
    }
    if let Some(url) = &address.websocket {
        carrier = upgrade(url, carrier).await?;
    }
    Ok(carrier)
}

#[cfg(feature = "websocket")]
use crate::websocket::upgrade;

#[cfg(not(feature = "websocket"))]
async fn upgrade(_url: &str, _carrier: Carrier) -> io::Result<Carrier> {
    unreachable!("such an address is refused without the feature")
}
