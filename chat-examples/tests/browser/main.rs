//! The demo as people use it: two pages in headless Chromium that type and click, a server that is
//! killed and started again. Pictures are left in `target/screenshots`.

mod cdp;
#[path = "../process/mod.rs"]
mod process;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cdp::{Browser, Page};
use chat_core::channel::Channel;
use chat_core::id::UserId;
use chat_transport_ws::hub::{AccessRules, Hub};
use process::Demo;
use serde_json::json;

fn picture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../target/screenshots")
        .join(format!("{name}.png"))
}

async fn log_in(page: &Page, name: &str) {
    page.click("#login-name").await;
    page.type_text(name).await;
    page.key("Enter", 13).await;
    page.until("the application", "!document.getElementById('app').hidden")
        .await;
}

async fn say(page: &Page, text: &str) {
    page.click("#draft").await;
    page.type_text(text).await;
    page.key("Enter", 13).await;
}

/// The texts in the log, oldest first.
async fn texts(page: &Page) -> Vec<String> {
    let texts =
        page.eval("[...document.querySelectorAll('#log .msg .text')].map(e => e.innerText)");
    serde_json::from_value(texts.await).expect("a list of texts")
}

async fn hears(page: &Page, text: &str) {
    let has = format!(
        "[...document.querySelectorAll('#log .msg .text')].some(e => e.innerText === {})",
        json!(text)
    );
    page.until(text, &has).await;
}

/// Waits until the message with this text has this mark.
async fn marked(page: &Page, text: &str, mark: &str) {
    let has = format!(
        "[...document.querySelectorAll('#log .msg.mine')].some(e => \
         e.querySelector('.text').innerText === {} && e.querySelector('[data-mark={mark:?}]'))",
        json!(text)
    );
    page.until(&format!("{mark} on {text:?}"), &has).await;
}

/// Waits until the message with this text is accepted: whatever happens now, it arrives.
async fn stored(page: &Page, text: &str) {
    let has = format!(
        "[...document.querySelectorAll('#log .msg.mine')].some(e => \
         e.querySelector('.text').innerText === {} && !e.querySelector('[data-mark=none]'))",
        json!(text)
    );
    page.until(&format!("{text:?} to be stored"), &has).await;
}

/// Ann asks Bob, Bob accepts; both have the chat open.
async fn meet(ann: &Page, bob: &Page) {
    ann.click("[data-person='bob']").await;
    bob.click("[data-accept='ann']").await;
    bob.until(
        "an open chat",
        "!document.getElementById('composer').hidden",
    )
    .await;
    ann.until(
        "an open chat",
        "!document.getElementById('composer').hidden",
    )
    .await;
}

/// A demo and a browser, with a page of everybody.
async fn cast<const N: usize>(names: [&str; N]) -> (Stage, [Page; N]) {
    let state = tempfile::tempdir().expect("a temporary folder");
    let demo = Demo::start(state.path(), 0, |command| command);
    let browser = Browser::start().await;
    let mut pages = Vec::new();
    for name in names {
        let page = browser.page(&demo.url).await;
        log_in(&page, name).await;
        pages.push(page);
    }
    let pages = pages.try_into().ok().expect("one each");
    let stage = Stage {
        _demo: demo,
        _browser: browser,
        _state: state,
    };
    (stage, pages)
}

/// What must outlive the pages.
struct Stage {
    _demo: Demo,
    _browser: Browser,
    _state: tempfile::TempDir,
}

fn skipped() -> bool {
    std::env::var("CHAT_TEST_BROWSER").is_ok_and(|value| value == "skip")
}

fn run(story: impl Future<Output = ()>) {
    if skipped() {
        println!("not run: CHAT_TEST_BROWSER=skip");
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(story);
}

#[test]
fn two_people_chat_and_survive_kill_nine() {
    run(async {
        let state = tempfile::tempdir().expect("a temporary folder");
        let mut demo = Demo::start(state.path(), 0, |command| command);
        let browser = Browser::start().await;
        let (ann, bob) = (browser.page(&demo.url).await, browser.page(&demo.url).await);
        ann.until(
            "the login",
            "document.getElementById('login')?.hidden === false",
        )
        .await;
        ann.picture(&picture("01-login")).await;
        log_in(&ann, "ann").await;
        log_in(&bob, "bob").await;
        ann.click("[data-person='bob']").await;
        bob.until(
            "a request",
            "document.querySelector(\"[data-accept='ann']\")",
        )
        .await;
        bob.picture(&picture("02-request")).await;
        bob.click("[data-accept='ann']").await;
        ann.until(
            "an open chat",
            "!document.getElementById('composer').hidden",
        )
        .await;

        say(&ann, "hello bob").await;
        hears(&bob, "hello bob").await;
        marked(&ann, "hello bob", "displayed").await;
        assert_eq!(
            texts(&ann).await,
            ["hello bob"],
            "the echo became the message"
        );
        bob.click("#draft").await;
        bob.type_text("hi a").await;
        ann.until(
            "bob types",
            "document.getElementById('typing').innerText.includes('bob')",
        )
        .await;
        bob.type_text("nn").await;
        bob.key("Enter", 13).await;
        hears(&ann, "hi ann").await;
        ann.picture(&picture("03-chat")).await;

        // Killed while both talk: what was accepted is there once, in order, on both sides.
        for i in 0..15 {
            say(&ann, &format!("ann {i}")).await;
            say(&bob, &format!("bob {i}")).await;
        }
        stored(&ann, "ann 14").await;
        stored(&bob, "bob 14").await;
        demo.kill();
        ann.until("a banner", "!document.getElementById('banner').hidden")
            .await;
        ann.picture(&picture("04-banner")).await;
        let demo = Demo::start(state.path(), demo.port(), |command| command);
        for (page, theirs) in [(&ann, "bob"), (&bob, "ann")] {
            page.until("no banner", "document.getElementById('banner').hidden")
                .await;
            for i in 0..15 {
                hears(page, &format!("{theirs} {i}")).await;
            }
        }
        // A page that loads its state anew shows an empty log for a moment.
        let whole = "document.querySelectorAll('#log .msg .text').length >= 32";
        for page in [&ann, &bob] {
            page.until("the whole log", whole).await;
        }
        let (on_ann, on_bob) = (texts(&ann).await, texts(&bob).await);
        assert_eq!(on_ann, on_bob, "both screens show the same order");
        for who in ["ann", "bob"] {
            let said: Vec<_> = on_ann
                .iter()
                .filter(|text| text.starts_with(&format!("{who} ")))
                .cloned()
                .collect();
            let want: Vec<_> = (0..15).map(|i| format!("{who} {i}")).collect();
            assert_eq!(said, want, "each once, in order");
        }
        drop(demo);
    });
}

#[test]
fn messages_wait_for_those_who_are_away() {
    run(async {
        let (stage, [ann, bob]) = cast(["ann", "bob"]).await;
        meet(&ann, &bob).await;
        say(&ann, "before").await;
        hears(&bob, "before").await;
        bob.click("#logout").await;
        bob.until(
            "the login",
            "document.getElementById('login')?.hidden === false",
        )
        .await;
        let offline = "document.querySelector(\"[data-person='bob'] .dot\").classList";
        ann.until("bob gone", &format!("{offline}.contains('left')"))
            .await;
        for text in ["one", "two", "three"] {
            say(&ann, text).await;
        }
        marked(&ann, "three", "handed_off").await;
        log_in(&bob, "bob").await;
        bob.until(
            "three unread",
            "document.querySelector(\"[data-chat='ann'] .badge\")?.innerText.startsWith('3')",
        )
        .await;
        bob.picture(&picture("05-unread")).await;
        bob.click("[data-chat='ann']").await;
        for text in ["before", "one", "two", "three"] {
            hears(&bob, text).await;
        }
        marked(&ann, "three", "displayed").await;
        drop(stage);
    });
}

#[test]
fn a_group_whose_leader_lets_people_in() {
    run(async {
        let (stage, [ann, bob]) = cast(["ann", "bob"]).await;
        group_of(&ann, &[(&bob, "bob")]).await;
        let here = "document.getElementById('conv-sub').innerText.startsWith('2 of 2 here')";
        for page in [&ann, &bob] {
            page.until("who is here", here).await;
        }
        say(&ann, "welcome").await;
        hears(&bob, "welcome").await;
        say(&bob, "thanks").await;
        hears(&ann, "thanks").await;
        marked(&ann, "welcome", "displayed").await;
        ann.picture(&picture("06-group")).await;
        ann.dark(true).await;
        ann.picture(&picture("07-dark")).await;
        ann.size(390, 780).await;
        ann.picture(&picture("08-phone")).await;
        ann.click(".only-small").await;
        ann.until(
            "the members",
            "document.getElementById('panel').getClientRects().length",
        )
        .await;
        ann.picture(&picture("09-phone-members")).await;
        bob.click("#logout").await;
        let left = "document.getElementById('conv-sub').innerText.startsWith('1 of 2 here')";
        ann.until("who went", left).await;
        ann.click("#back").await;
        ann.picture(&picture("10-phone-list")).await;
        drop(stage);
    });
}

/// Everybody is in the group that the first of them made.
async fn group_of(leader: &Page, others: &[(&Page, &str)]) {
    // The list stands still once everybody is in it, the bot too.
    let all = format!(
        "document.querySelectorAll('[data-person]').length >= {}",
        others.len() + 1
    );
    leader.until("everybody", &all).await;
    leader.click("#group-name").await;
    leader.type_text("ops").await;
    leader.key("Enter", 13).await;
    let title = "document.getElementById('conv-title').innerText === 'ops'";
    leader.until("the group", title).await;
    for (page, name) in others {
        page.click("[data-listing='ops']").await;
        leader.click(&format!("[data-approve='{name}']")).await;
        let open = "!document.getElementById('composer').hidden";
        page.until("an open room", open).await;
    }
}

#[test]
fn a_group_whose_leader_is_gone_shows_who_leads_now_and_why() {
    run(async {
        let (stage, [ann, bob, carol]) = cast(["ann", "bob", "carol"]).await;
        group_of(&ann, &[(&bob, "bob"), (&carol, "carol")]).await;
        for page in [&ann, &bob, &carol] {
            let badge = "document.querySelector('[data-leader]')?.dataset.leader === 'ann'";
            page.until("the leader's badge", badge).await;
        }
        carol.picture(&picture("11-leader")).await;
        ann.close().await;
        for page in [&bob, &carol] {
            let leads = "['bob', 'carol'].includes(document.querySelector('[data-leader]')?.dataset.leader)";
            page.until("the next leader's badge", leads).await;
            let told = "!document.getElementById('lead').hidden \
                && document.getElementById('lead').innerText.includes('ann was silent')";
            page.until("who leads now and why", told).await;
        }
        carol.picture(&picture("12-succession")).await;
        let leaders = "document.querySelector('[data-leader]').dataset.leader";
        assert_eq!(bob.eval(leaders).await, carol.eval(leaders).await);
        // The group goes on.
        say(&bob, "we go on").await;
        hears(&carol, "we go on").await;
        carol.click("#lead button").await;
        let read = "document.getElementById('lead').hidden";
        carol.until("no banner once it is read", read).await;
        drop(stage);
    });
}

#[test]
fn the_bot_answers_and_keys_work() {
    run(async {
        let (stage, [ann]) = cast(["ann"]).await;
        ann.click("[data-person='echo']").await;
        ann.until(
            "an open chat",
            "!document.getElementById('composer').hidden",
        )
        .await;
        hears(&ann, "Hello ann! Say something, or ask for help.").await;
        say(&ann, "shout it works").await;
        hears(&ann, "IT WORKS!").await;
        let hostile = "<img src=x onerror=document.title='pwned'>";
        say(&ann, hostile).await;
        hears(&ann, &format!("You said: {hostile}")).await;
        ann.until(
            "no markup from a message",
            "document.querySelector('#log img') === null",
        )
        .await;
        ann.key("Escape", 27).await;
        ann.until("the list", "!document.getElementById('empty').hidden")
            .await;
        ann.key("?", 191).await;
        ann.until("the help", "document.getElementById('help').open")
            .await;
        drop(stage);
    });
}

/// Nobody may write to a chat while this is set.
#[derive(Debug)]
struct Barred(Arc<AtomicBool>);

impl AccessRules for Barred {
    fn may_subscribe(&self, _user: &UserId, _channel: &Channel) -> bool {
        true
    }

    fn may_publish(&self, _user: &UserId, channel: &Channel) -> bool {
        !matches!(channel, Channel::Conv(_)) || !self.0.load(Ordering::SeqCst)
    }
}

/// Waits until the message with this text says that it is stuck.
async fn stuck(page: &Page, text: &str) {
    let has = format!(
        "document.querySelector('#log .msg.mine [data-wedged=denied]')\
         ?.parentElement.querySelector('.text').innerText === {}",
        json!(text)
    );
    page.until(&format!("{text:?} to be stuck"), &has).await;
}

#[test]
fn q2_what_the_broker_refuses_waits_for_retry_or_discard() {
    run(async {
        let barred = Arc::new(AtomicBool::new(false));
        let hub = Hub::builder()
            .allow_all()
            .access(Barred(barred.clone()))
            .in_memory()
            .bind(([127, 0, 0, 1], 0).into())
            .await
            .expect("a free port");
        let state = tempfile::tempdir().expect("a temporary folder");
        let url = hub.url();
        let demo = Demo::start(state.path(), 0, |command| command.args(["--url", &url]));
        let browser = Browser::start().await;
        let (ann, bob) = (browser.page(&demo.url).await, browser.page(&demo.url).await);
        log_in(&ann, "ann").await;
        log_in(&bob, "bob").await;
        meet(&ann, &bob).await;
        say(&ann, "before").await;
        marked(&ann, "before", "displayed").await;

        barred.store(true, Ordering::SeqCst);
        say(&ann, "stuck").await;
        stuck(&ann, "stuck").await;
        say(&ann, "behind it").await;
        stored(&ann, "behind it").await;
        ann.picture(&picture("13-stuck")).await;
        barred.store(false, Ordering::SeqCst);
        ann.click("[data-wedged] button:nth-of-type(1)").await;
        for text in ["stuck", "behind it"] {
            hears(&bob, text).await;
            marked(&ann, text, "displayed").await;
        }

        barred.store(true, Ordering::SeqCst);
        say(&ann, "never mind").await;
        stuck(&ann, "never mind").await;
        ann.click("[data-wedged] button:nth-of-type(2)").await;
        let over = "document.querySelector('#log .msg.mine .mark.failed') \
            && !document.querySelector('[data-wedged]')";
        ann.until("an end, and no more question", over).await;
        barred.store(false, Ordering::SeqCst);
        say(&ann, "after").await;
        hears(&bob, "after").await;
        let want = ["before", "stuck", "behind it", "after"];
        assert_eq!(texts(&bob).await, want);
        drop(demo);
    });
}
