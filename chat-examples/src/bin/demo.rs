//! The demo: `cargo run -p chat-examples --bin demo`, then open the printed address in two
//! windows.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use chat_client::transport::Connector;
use chat_core::id::UserId;
use chat_examples::demo::args::{self, Args, Options};
use chat_examples::demo::broker::{self, Broker};
use chat_examples::demo::host::{BOT, Host};
use chat_examples::demo::{bot, http};
use chat_transport_ws::hub::{Hub, HubHandle};
use tokio::net::TcpListener;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const STOP: Duration = Duration::from_secs(3);
/// Marks a folder as ours, so that `--fresh` wipes nothing else.
const MARKER: &str = "README.txt";

#[tokio::main]
async fn main() -> ExitCode {
    let options = match args::parse(std::env::args().skip(1)) {
        Ok(Args::Help) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Ok(Args::Run(options)) => options,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    match run(options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the demo stopped: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<(), Failure> {
    if options.fresh {
        wipe(&options.state)?;
    }
    std::fs::create_dir_all(&options.state)?;
    let marker = "written by the chat demo; --fresh wipes this folder\n";
    std::fs::write(options.state.join(MARKER), marker)?;
    let listener = listen(&options).await?;
    let page = listener.local_addr()?;

    let url = broker::chosen(options.url.clone(), |name| std::env::var(name).ok())?;
    // The hub is for this process; its clients come over a real socket all the same, so that
    // the demo shows what a program with a broker elsewhere does.
    let hub = match &url {
        Some(_) => None,
        None => Some(own_hub(&options).await?),
    };
    let url = url.or_else(|| hub.as_ref().map(HubHandle::url));
    let broker = Broker::from_url(&url.unwrap_or_default())?;
    let over = match &hub {
        Some(_) => String::new(),
        None => format!(" over {}", broker.capabilities().name),
    };
    let host = Arc::new(Host::new(&options.state, broker));
    let client = host.open(&UserId::new(BOT)?).await?;
    let bot = tokio::spawn(bot::serve(client.clone()));

    let state = options.state.display();
    println!("Chat is at http://{page}/{over}   (state in {state}, Ctrl-C stops it)");
    let server = axum::serve(listener, http::router(host.clone()));
    tokio::select! {
        served = server.into_future() => served?,
        () = signalled() => {}
    }
    host.close().await;
    // What the bot could not hand over is durable and goes out after the next start.
    client.shutdown(STOP).await.ok();
    bot.await??;
    if let Some(hub) = hub {
        hub.shutdown(STOP).await;
    }
    println!("stopped; everything is kept");
    Ok(())
}

async fn own_hub(options: &Options) -> Result<HubHandle, Failure> {
    let hub = Hub::builder()
        .allow_all()
        .store(options.state.join("hub.redb"))
        .bind(([127, 0, 0, 1], 0).into())
        .await;
    Ok(hub.map_err(|error| {
        let state = options.state.display();
        format!("{error}\nIs another demo running over {state}? Stop it, or give --state DIR.")
    })?)
}

/// Wipes only a folder that an earlier run made.
fn wipe(state: &Path) -> Result<(), Failure> {
    if !state.exists() {
        return Ok(());
    }
    if !state.join(MARKER).exists() {
        let shown = state.display();
        let text = format!("{shown} was not made by the demo; it is not wiped, delete it yourself");
        return Err(text.into());
    }
    Ok(std::fs::remove_dir_all(state)?)
}

async fn listen(options: &Options) -> Result<TcpListener, Failure> {
    let mut last = String::new();
    for address in options.addresses() {
        if !last.is_empty() {
            println!("{last}; taking a free port instead");
        }
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) => last = format!("cannot listen on {address}: {error}"),
        }
    }
    Err(format!("{last}; choose another with --port").into())
}

/// Waits for Ctrl-C or a termination signal.
async fn signalled() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = interrupt => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    interrupt.await.ok();
}
