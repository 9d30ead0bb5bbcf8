//! The demo killed with SIGKILL while people chat, through the page's own WebSocket: what was
//! accepted is there once and in order, on every side.

mod page;
mod process;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chat_testkit::sim::Draw;
use page::{DEADLINE, Lost, Page, text, within};
use process::Demo;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, interval, sleep};

/// Sends of one talker without an answer.
const WINDOW: u64 = 8;
/// Rows of one look at a history.
const PAGE: usize = 200;
/// Decides the instants of the kills.
const SEED: u64 = 1;

/// The id, the sender and the text of a message in a history.
type Row = (String, String, String);

/// The demo, and what all tasks know of it.
struct Stage {
    demo: Demo,
    state: tempfile::TempDir,
    lives: watch::Sender<u64>,
    world: World,
}

/// What a person needs to know: where, in which life of the demo, and how much was answered.
#[derive(Clone)]
struct World {
    port: u16,
    lives: watch::Receiver<u64>,
    answered: Arc<watch::Sender<u64>>,
    done: Arc<AtomicBool>,
}

impl Stage {
    fn open() -> Self {
        let state = tempfile::tempdir().expect("a temporary folder");
        let demo = Demo::start(state.path(), 0, |command| command);
        let lives = watch::Sender::new(1);
        let world = World {
            port: demo.port(),
            lives: lives.subscribe(),
            answered: Arc::new(watch::Sender::new(0)),
            done: Arc::default(),
        };
        Self {
            demo,
            state,
            lives,
            world,
        }
    }

    fn person(&self, name: &'static str) -> Person {
        Person {
            name,
            world: self.world.clone(),
            life: 0,
            page: None,
        }
    }

    /// Kills the demo after some more answers and a moment, and starts it again.
    async fn kill(&mut self, random: &mut Draw) {
        let mut answered = self.world.answered.subscribe();
        // Now and then at once: while people log in.
        let more = random.below(5).min(1) * (2 * WINDOW + random.below(4 * WINDOW));
        let until = *answered.borrow() + more;
        let answers = answered.wait_for(|now| *now >= until);
        within("answers to sends", answers)
            .await
            .expect("we hold it");
        sleep(Duration::from_micros(random.below(120_000))).await;
        self.demo.kill();
        self.demo = Demo::start(self.state.path(), self.world.port, |command| command);
        self.lives.send_modify(|life| *life += 1);
    }
}

/// Somebody who comes back after every kill.
struct Person {
    name: &'static str,
    world: World,
    /// The demo's life in which the page was opened.
    life: u64,
    page: Option<Page>,
}

impl Person {
    /// The page, logged in; a new one after the demo's next start when it was lost.
    async fn page(&mut self) -> &mut Page {
        while self.page.is_none() {
            let last = self.life;
            let lives = &mut self.world.lives;
            let next = within("new life of the demo", lives.wait_for(|life| *life > last)).await;
            self.life = *next.expect("the stage outlives its people");
            self.page = within("login", Page::log_in(self.name, self.world.port))
                .await
                .ok();
        }
        self.page.as_mut().expect("just opened")
    }

    /// Gives a batch of calls, waits for all answers, and repeats the batch when they are lost.
    async fn batch(&mut self, calls: &[Value]) -> Vec<Result<Value, String>> {
        loop {
            if let Ok(answers) = Self::once(self.page().await, calls).await {
                return answers;
            }
            self.page = None;
        }
    }

    async fn once(page: &mut Page, calls: &[Value]) -> Result<Vec<Result<Value, String>>, Lost> {
        let mut ids = Vec::new();
        for call in calls {
            ids.push(page.ask(call.clone()).await?);
        }
        let mut answers = Vec::new();
        for id in ids {
            answers.push(page.answer(id).await?);
        }
        Ok(answers)
    }

    async fn call(&mut self, call: Value) -> Result<Value, String> {
        self.batch(&[call]).await.remove(0)
    }

    /// Waits until what the page was told has `found`.
    async fn until<T>(&mut self, what: &str, found: impl Fn(&Page) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let page = self.page().await;
            if let Some(found) = found(page) {
                return found;
            }
            assert!(Instant::now() < deadline, "{} saw no {what}", self.name);
            if within(what, page.heard()).await.is_err() {
                self.page = None;
            }
        }
    }

    fn send(&self, conv: &str, n: u64) -> Value {
        let name = self.name;
        let txn = format!("{:016x}{n:016x}", u64::from(name.as_bytes()[0]));
        json!({"t": "send", "conv": conv, "txn": txn, "text": format!("{name} {n}")})
    }

    /// Talks until told that it is enough; returns how many sends were answered with `ok`. Every
    /// send is repeated, with the transaction it had, until it has an answer.
    async fn talk(mut self, conv: String, from: u64) -> (Self, u64) {
        let mut next = from;
        loop {
            let calls: Vec<_> = (next..next + WINDOW).map(|n| self.send(&conv, n)).collect();
            for answer in self.batch(&calls).await {
                answer.unwrap_or_else(|why| panic!("{} sends: {why}", self.name));
            }
            next += WINDOW;
            self.world.answered.send_modify(|n| *n += WINDOW);
            if self.world.done.load(Ordering::Relaxed) {
                return (self, next);
            }
        }
    }

    /// Everything the conversation shows, oldest first.
    async fn history(&mut self, conv: &str) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut before = Value::Null;
        loop {
            let call = json!({"t": "history", "conv": conv, "before": before, "limit": PAGE});
            let answer = self.call(call).await.expect("history");
            let items = answer["items"].as_array().expect("items").clone();
            for item in &items {
                assert_ne!(item["kind"], "gap", "{} has a gap: {item}", self.name);
                assert!(item["failed"].is_null(), "{} gave up: {item}", self.name);
            }
            let page = items
                .iter()
                .map(|item| (text(&item["id"]), text(&item["from"]), text(&item["text"])));
            rows.splice(0..0, page);
            if items.len() < PAGE {
                return rows;
            }
            before = items[0]["sort"].clone();
        }
    }

    /// The history once it shows every one of `texts`.
    async fn whole(&mut self, conv: &str, texts: &[String]) -> Vec<Row> {
        let deadline = Instant::now() + DEADLINE;
        let mut tick = interval(Duration::from_millis(100));
        loop {
            let rows = self.history(conv).await;
            let shown: BTreeSet<_> = rows.iter().map(|row| &row.2).collect();
            let Some(missing) = texts.iter().find(|text| !shown.contains(text)) else {
                return rows;
            };
            let name = self.name;
            assert!(
                Instant::now() < deadline,
                "{name} does not have {missing:?}"
            );
            tick.tick().await;
        }
    }
}

/// What `who` said in these rows, oldest first.
fn said(rows: &[Row], who: &str) -> Vec<String> {
    let of = rows.iter().filter(|(_, from, _)| from == who);
    of.map(|(_, _, text)| text.clone()).collect()
}

fn numbered(who: &str, numbers: core::ops::Range<u64>) -> Vec<String> {
    numbers.map(|n| format!("{who} {n}")).collect()
}

fn chat_is(state: &'static str) -> impl Fn(&Page) -> Option<String> {
    move |page| {
        let mut chats = page.chats.values();
        let chat = chats.find(|chat| chat["state"] == state)?;
        Some(text(&chat["conv"]))
    }
}

/// The request of `user` to join the one group.
fn join_of(user: &'static str) -> impl Fn(&Page) -> Option<String> {
    move |page| {
        let mut requests = page
            .chats
            .values()
            .filter_map(|chat| chat["requests"].as_array())
            .flatten();
        let request = requests.find(|request| request["user"] == user)?;
        Some(text(&request["request"]))
    }
}

/// True when the one group has exactly these members.
fn roster_is(users: &'static [&'static str]) -> impl Fn(&Page) -> Option<()> {
    move |page| {
        let mut chats = page.chats.values();
        let same = |chat: &Value| chat["state"] == "open" && chat["roster"] == json!(users);
        chats.any(same).then_some(())
    }
}

fn run(story: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(story);
}

#[test]
fn two_people_survive_six_kills_at_random_instants() {
    run(async {
        let mut random = Draw::new(SEED, "two");
        let mut stage = Stage::open();
        let (mut ann, mut bob) = (stage.person("ann"), stage.person("bob"));
        bob.page().await;
        ann.call(json!({"t": "request", "peer": "bob", "note": ""}))
            .await
            .expect("ann asks");
        let request = |page: &Page| page.requests.get("ann").cloned();
        let invite = bob.until("request", request).await;
        bob.call(json!({"t": "accept", "invite": invite}))
            .await
            .expect("bob accepts");
        let conv = ann.until("open chat", chat_is("open")).await;

        let talks = [ann, bob].map(|person| tokio::spawn(person.talk(conv.clone(), 0)));
        for _ in 0..6 {
            stage.kill(&mut random).await;
        }
        stage.world.done.store(true, Ordering::Relaxed);
        let [ann, bob] = talks;
        let (mut ann, by_ann) = within("end of ann", ann).await.expect("ann");
        let (mut bob, by_bob) = within("end of bob", bob).await.expect("bob");

        let (by_ann, by_bob) = (numbered("ann", 0..by_ann), numbered("bob", 0..by_bob));
        let all = [by_ann.clone(), by_bob.clone()].concat();
        let on_ann = ann.whole(&conv, &all).await;
        let on_bob = bob.whole(&conv, &all).await;
        assert_eq!(on_ann, on_bob, "both show the same, in the same order");
        assert_eq!(said(&on_ann, "ann"), by_ann, "each once, in order");
        assert_eq!(said(&on_ann, "bob"), by_bob, "each once, in order");
        assert_eq!(on_ann.len(), all.len(), "nothing else is there");
    });
}

#[test]
fn a_group_that_lets_somebody_in_survives_two_kills() {
    run(async {
        let mut random = Draw::new(SEED, "three");
        let mut stage = Stage::open();
        let (mut ann, mut bob) = (stage.person("ann"), stage.person("bob"));
        let answer = ann
            .call(json!({"t": "create_group", "name": "three"}))
            .await;
        let conv = text(&answer.expect("ann creates a group")["conv"]);
        let join = json!({"t": "join", "group": conv, "note": ""});
        bob.call(join.clone()).await.expect("bob asks");
        let request = ann.until("request of bob", join_of("bob")).await;
        let approve = |request| json!({"t": "approve", "group": conv, "request": request});
        ann.call(approve(request)).await.expect("ann lets bob in");
        bob.until("group of two", roster_is(&["ann", "bob"])).await;
        ann.until("group of two", roster_is(&["ann", "bob"])).await;

        // Two talk and are killed twice, while a third asks and is let in.
        let mut cyd = stage.person("cyd");
        let mut leader = stage.person("ann");
        let talks = [ann, bob].map(|person| tokio::spawn(person.talk(conv.clone(), 0)));
        let asks = async {
            // A repeated request may be refused: the first one stands.
            cyd.call(join).await.ok();
            cyd.until("group of three", roster_is(&["ann", "bob", "cyd"]))
                .await;
        };
        let lets_in = async {
            let request = leader.until("request of cyd", join_of("cyd")).await;
            // A repeated approval may find nothing to approve.
            leader.call(approve(request)).await.ok();
            leader
                .until("group of three", roster_is(&["ann", "bob", "cyd"]))
                .await;
        };
        let kills = async {
            for _ in 0..2 {
                stage.kill(&mut random).await;
            }
        };
        tokio::join!(asks, lets_in, kills);
        stage.world.done.store(true, Ordering::Relaxed);
        let [ann, bob] = talks;
        let (mut ann, by_ann) = within("end of ann", ann).await.expect("ann");
        let (mut bob, by_bob) = within("end of bob", bob).await.expect("bob");

        // All know each other; what is said now reaches all.
        let mut last = Vec::new();
        for (person, from) in [(&mut ann, by_ann), (&mut bob, by_bob), (&mut cyd, 0)] {
            person
                .until("group of three", roster_is(&["ann", "bob", "cyd"]))
                .await;
            let call = person.send(&conv, from);
            person.call(call).await.expect("the last word");
            last.push(format!("{} {from}", person.name));
        }
        let (by_ann, by_bob) = (
            numbered("ann", 0..by_ann + 1),
            numbered("bob", 0..by_bob + 1),
        );
        let all = [by_ann.clone(), by_bob.clone(), numbered("cyd", 0..1)].concat();
        let on_ann = ann.whole(&conv, &all).await;
        let on_bob = bob.whole(&conv, &all).await;
        let on_cyd = cyd.whole(&conv, &last).await;
        assert_eq!(on_ann, on_bob, "both show the same, in the same order");
        assert_eq!(said(&on_ann, "ann"), by_ann, "each once, in order");
        assert_eq!(said(&on_ann, "bob"), by_bob, "each once, in order");
        assert_eq!(on_ann.len(), all.len(), "nothing else is there");
        // Who came later sees what was said since, without a hole, and in the same order.
        assert!(by_ann.ends_with(&said(&on_cyd, "ann")), "{on_cyd:?}");
        assert!(by_bob.ends_with(&said(&on_cyd, "bob")), "{on_cyd:?}");
        let shared: Vec<_> = on_ann.iter().filter(|row| on_cyd.contains(row)).collect();
        assert_eq!(shared, on_cyd.iter().collect::<Vec<_>>());
    });
}
