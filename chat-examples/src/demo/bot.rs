//! The bot: says yes to everybody, answers everything, needs no network and no key. As the one client
//! that is always there it also tells the console how the connection is.

use chat_client::{Client, ClientError, Event};
use chat_core::id::UserId;
use chat_core::link::LinkState;

/// Serves until the client stops.
///
/// # Errors
/// [`ClientError`] when the client stopped because something failed.
pub async fn serve(client: Client) -> Result<(), ClientError> {
    let mut events = client.events().await?;
    // The stream ends when the last handle is gone; this one must not keep it open.
    let me = client.user().clone();
    let mut down = false;
    while let Some(event) = events.next().await {
        match event {
            Event::Request(request) => {
                // A request that was withdrawn meanwhile needs no answer.
                if let Ok(chat) = request.accept().await {
                    let hello = format!("Hello {}! Say something, or ask for help.", chat.peer());
                    chat.send(hello.as_str()).await.ok();
                }
            }
            Event::Message(message) => {
                let Some(chat) = client.chat(&message.from).await? else {
                    continue;
                };
                chat.typing(true).await?;
                let answer = answer(&me, &message.from, message.content.fallback());
                chat.mark_read(message.sort).await?;
                // A chat that ended meanwhile takes no answer.
                chat.send(answer.as_str()).await.ok();
            }
            Event::Link(LinkState::Disconnected { reason, .. }) if !down => {
                down = true;
                eprintln!("the broker is away ({reason}); trying again until it is back");
            }
            Event::Link(LinkState::Failed { reason }) => {
                eprintln!("the broker cannot be used ({reason}); mend that and start again");
            }
            Event::Link(LinkState::Connected { .. }) if down => {
                down = false;
                eprintln!("the broker is back");
            }
            _ => {}
        }
    }
    Ok(())
}

/// What the bot says: a function of what it hears.
fn answer(me: &UserId, from: &UserId, text: &str) -> String {
    let words = text.trim().to_lowercase();
    let has = |word: &str| {
        words
            .split(|c: char| !c.is_alphanumeric())
            .any(|w| w == word)
    };
    if has("help") {
        "I repeat what you say. I also know: hello, reverse …, count …, shout ….".to_owned()
    } else if has("hello") || has("hi") || has("hey") {
        format!("Hello {from}, I am {me}.")
    } else if let Some(rest) = words.strip_prefix("reverse ") {
        rest.chars().rev().collect()
    } else if let Some(rest) = words.strip_prefix("shout ") {
        format!("{}!", rest.to_uppercase())
    } else if let Some(rest) = text.trim().strip_prefix("count ") {
        format!(
            "{} words, {} characters",
            rest.split_whitespace().count(),
            rest.chars().count()
        )
    } else {
        format!("You said: {text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_follow_from_what_was_said() {
        let (me, you) = (UserId::new("echo").unwrap(), UserId::new("ann").unwrap());
        let say = |text| answer(&me, &you, text);
        assert_eq!(say("Hi there"), "Hello ann, I am echo.");
        assert_eq!(say("reverse abc"), "cba");
        assert_eq!(say("shout stop"), "STOP!");
        assert_eq!(say("count one two"), "2 words, 7 characters");
        assert_eq!(say("this"), "You said: this", "no word of it is hi");
        assert!(say("HELP").contains("reverse"));
    }
}
