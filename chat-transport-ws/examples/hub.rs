//! A hub of its own: `cargo run -p chat-transport-ws --features hub --example hub -- --port 9000
//! --state hub.redb`. It lets everybody in who can reach this machine's loopback address; put
//! your own `Authenticator` in place of `allow_all` before you listen elsewhere.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::ExitCode;

use chat_transport_ws::hub::Hub;

const HELP: &str = "\
Usage: hub [--port N] [--state FILE]

  --port N       listen on this port of 127.0.0.1; default: a free one
  --state FILE   where durable frames are kept; default: in memory only
";

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    port: u16,
    state: Option<PathBuf>,
}

/// The options, or what is wrong with them.
fn parse(args: impl IntoIterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let value = args.next().ok_or(format!("{arg} needs a value\n{HELP}"))?;
        match arg.as_str() {
            "--port" => {
                let port = value.parse();
                options.port = port.map_err(|_| format!("{value:?} is no port\n{HELP}"))?;
            }
            "--state" => options.state = Some(value.into()),
            _ => return Err(format!("unknown argument {arg:?}\n{HELP}")),
        }
    }
    Ok(options)
}

/// Serves until the process is killed: there is nothing to tidy up that a kill would spoil.
pub(crate) async fn serve(args: impl IntoIterator<Item = String>) -> Result<(), String> {
    let options = parse(args)?;
    let builder = Hub::builder().allow_all();
    let builder = match options.state {
        Some(file) => builder.store(file),
        None => builder.in_memory(),
    };
    let bound = builder
        .bind((Ipv4Addr::LOCALHOST, options.port).into())
        .await;
    let hub = bound.map_err(|error| error.to_string())?;
    println!("the hub is at {}", hub.url());
    core::future::pending().await
}

#[tokio::main]
#[allow(dead_code, reason = "a test runs `serve` in a child process")]
async fn main() -> ExitCode {
    let Err(error) = serve(std::env::args().skip(1)).await else {
        return ExitCode::SUCCESS;
    };
    eprintln!("{error}");
    ExitCode::FAILURE
}
