//! A look at what the broker keeps, under a client id of its own that disturbs nobody.

use bytes::{Bytes, BytesMut};
use chat_client::transport::TransportError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::connector::Settings;
use crate::handshake::{MAX_PACKET, greet};
use crate::packet::{Codec, Connect, Id, Packet};

/// The last value of `topic`.
pub(crate) async fn last_value(
    settings: &Settings,
    client_id: &str,
    user: &str,
    topic: &str,
) -> Result<Option<Bytes>, TransportError> {
    let (mut carrier, mut buf, _) = greet(
        settings,
        &Connect {
            client_id: &format!("{client_id}.probe"),
            clean: true,
            user,
            password: &settings.password,
            keep_alive: settings.keep_alive,
            session_expiry: 0,
            receive_maximum: 1,
            will: None,
        },
    )
    .await?;
    let mut codec = Codec::new(settings.version, MAX_PACKET);
    let mut out = BytesMut::new();
    codec.subscribe(Id(1), topic, &mut out);
    // What is kept comes before the answer to what we ask behind it.
    codec.ping(&mut out);
    let lost = |_| TransportError::lost();
    carrier.write_all(&out).await.map_err(lost)?;
    carrier.flush().await.map_err(lost)?;
    let mut found = None;
    loop {
        match codec.next(&mut buf)? {
            Some(Packet::Publish {
                payload, retained, ..
            }) if retained => found = Some(payload),
            Some(Packet::Pong) => break,
            Some(Packet::Closing(error)) => return Err(error),
            Some(_) => {}
            None => {
                buf.reserve(1_024);
                if carrier.read_buf(&mut buf).await.map_err(lost)? == 0 {
                    return Err(TransportError::lost());
                }
            }
        }
    }
    out.clear();
    codec.disconnect(&mut out);
    carrier.write_all(&out).await.map_err(lost)?;
    carrier.flush().await.map_err(lost)?;
    Ok(found)
}
