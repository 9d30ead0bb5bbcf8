//! The end of a run: IG5 and IG6, or why the group cannot come to one (IG11, R8).

use chat_core::group::{GroupView, Membership};

use super::super::certificate::Fold;
use super::super::{Settled, Verdict, View, Violation};
use super::Groups;

impl Groups {
    /// IG5 and IG6 at the end: one head, one live leader, everybody answered, nothing unsettled.
    ///
    /// # Errors
    /// What is still missing.
    pub fn settled(&mut self, nodes: &[View<'_>]) -> Result<Settled, Violation> {
        let verdict = self.judged(nodes);
        let missing = verdict.as_ref().err();
        self.overdue = self.agreement.look(nodes, missing).err();
        verdict
    }

    fn judged(&mut self, nodes: &[View<'_>]) -> Result<Settled, Violation> {
        if let Some(node) = nodes
            .iter()
            .find(|node| !node.killed && node.endpoint.is_none())
        {
            let text = format!("node {} is down", node.at.node);
            return Err(Violation::new("IG5", text));
        }
        let views = self.views(nodes);
        let inside = |view: &GroupView| {
            matches!(
                view.mine,
                Membership::Member | Membership::Leader | Membership::Leaving
            )
        };
        let mut best: Option<Fold> = None;
        for (_, view) in views.iter().filter(|(_, view)| inside(view)) {
            if let Some(fold) = self.log.fold(view.hash)
                && let Ok(fold) = &*fold
                && best.as_ref().is_none_or(|best| best.rank() < fold.rank())
            {
                best = Some(fold.clone());
            }
        }
        // Nobody is in any more, or the group never was: nobody can answer.
        let Some(best) = best else {
            return Ok(Settled::Exempt);
        };
        let verdict = missing(&views, &best);
        if verdict.is_ok() {
            return Ok(Settled::Yes);
        }
        let late = nodes
            .first()
            .is_some_and(|node| node.at.now > self.patience);
        let alive = |device: &[u8; 32]| {
            nodes
                .iter()
                .any(|node| node.at.device.0 == *device && !node.killed)
        };
        let living = best.members.keys().filter(|device| alive(device)).count();
        // A living leader of an available group needs nobody; whoever succeeds, so many.
        let leads = alive(&best.leader)
            && best.members.contains_key(&best.leader)
            && best.heir.is_none_or(|heir| alive(&heir));
        let wanted = if leads && !best.strict {
            1
        } else {
            best.needed()
        };
        // A leader that leaves, or that a kick names (R8), waits for a successor, who may be gone.
        let alone = living < 2;
        let leaves = views
            .iter()
            .any(|(_, view)| view.mine == Membership::Leaving);
        let caretaker = best.members.len() > 1
            && views
                .iter()
                .any(|(_, view)| view.mine == Membership::Leader && view.unsettled > 0);
        if living < wanted || alone && (leaves || caretaker && late) {
            return Ok(Settled::Exempt);
        }
        if alone && caretaker {
            return Err(Violation::new("R8", "a caretaker waits for a member"));
        }
        verdict.map(|()| Settled::Yes)
    }
}

fn missing(views: &[(&View<'_>, GroupView)], best: &Fold) -> Verdict {
    let missing = |rule: &'static str, text: String| Err(Violation::new(rule, text));
    let reigning = views
        .iter()
        .filter(|(_, view)| view.mine == Membership::Leader)
        .count();
    if reigning != 1 {
        return missing("IG5", format!("{reigning} nodes lead"));
    }
    let mut shown: Option<&GroupView> = None;
    for (node, view) in views.iter().filter(|(node, _)| !node.killed) {
        let n = node.at.node;
        let listed = best.members.contains_key(&node.at.device.0);
        match view.mine {
            Membership::Asking => return missing("IG6", format!("node {n} still asks to join")),
            Membership::Leaving => return missing("IG6", format!("node {n} is still leaving")),
            Membership::Leader if !view.requests.is_empty() => {
                return missing("IG6", format!("the leader keeps {:?}", view.requests));
            }
            Membership::Member | Membership::Leader if !listed => {
                return missing("IG4", format!("node {n} believes that it is in"));
            }
            Membership::Member | Membership::Leader => {}
            _ if listed => {
                let text = format!("node {n} is {:?}, the log lists it", view.mine);
                return missing("IG5", text);
            }
            _ => continue,
        }
        if view.hash != best.hash {
            let text = format!(
                "node {n} is at round {} index {}, the head is at round {} index {}",
                view.round, view.index, best.term.round, best.index
            );
            return missing("IG5", text);
        }
        if view.unsettled > 0 || !view.hidden.is_empty() {
            let text = format!(
                "node {n} keeps {} unsettled, hides {:?}",
                view.unsettled, view.hidden
            );
            return missing("IG5", text);
        }
        let first = *shown.get_or_insert(view);
        if first.roster != view.roster {
            let text = format!(
                "node {n} shows {:?}, another {:?}",
                view.roster, first.roster
            );
            return missing("IG5", text);
        }
    }
    Ok(())
}
