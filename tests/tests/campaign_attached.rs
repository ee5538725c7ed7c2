//! The fault campaign of a server that runs without relisten: relisten attaches, is told to let go, is killed; workers are
//! killed, stopped and let go on, replaced by the server's own reload, more and fewer; policies and weights change, and
//! somebody joins the group and takes the program away. Nothing is lost but what a killed worker had accepted, and what a
//! rogue had.
//!
//! Without relisten the server itself loses what waits for a worker that goes. So workers go, and rogues come, only while it
//! is attached.

use relisten_e2e::attached::{Attached, NAME, PORT, Running, address};
use relisten_e2e::campaign::{Account, Random, lasts};
use relisten_e2e::load::{self, Load};
use relisten_e2e::rogue::{self, Rogue};
use relisten_e2e::{Kind, Scene, Test, cli, millis, process, seconds, wait_until};
use rustix::process::Signal;
use std::time::Instant;

const POLICIES: [&str; 7] =
    ["hash", "random", "round-robin", "least-connections", "client-ip", "weighted", "auto"];

#[test]
fn attached() {
    let lasts = lasts(10);
    Test::new().root().server(Kind::Python).limit(lasts + seconds(120)).run(|scene| {
        let mut campaign = Campaign {
            scene,
            random: Random::seeded(),
            account: Account::new(),
            server: Running::prefork(scene),
            attached: None,
            stopped: Vec::new(),
            rogue: None,
        };
        let load = Load::start(load::plan(address(), "/"));
        while load.elapsed() < lasts || campaign.account.is_thin() {
            load.run_until(load.elapsed() + millis(20 + campaign.random.below(180)));
            campaign.fault();
        }
        campaign.go_on(None);
        campaign.rogue_leaves();
        campaign.let_go();
        load.more(200, seconds(30));
        campaign.account.settle(scene.name(), vec![load]);
    });
}

struct Campaign<'a> {
    scene: &'a Scene,
    random: Random,
    account: Account,
    server: Running,
    attached: Option<Attached>,
    /// Stopped, until then.
    stopped: Vec<(Instant, u32)>,
    /// In the group until then.
    rogue: Option<(Instant, Rogue)>,
}

impl Campaign<'_> {
    /// One more.
    fn fault(&mut self) {
        self.go_on(Some(Instant::now()));
        if self.rogue.as_ref().is_some_and(|(end, _)| *end <= Instant::now()) {
            self.rogue_leaves();
        }
        if self.attached.is_none() {
            return if self.random.below(3) == 0 { self.stop() } else { self.attach() };
        }
        match self.random.below(13) {
            0 if self.rogue.is_none() => self.let_go(),
            1 if self.rogue.is_none() => self.kill_relisten(),
            2 | 3 => self.kill(),
            4 => self.reload(),
            5 => self.more(),
            6 => self.fewer(),
            7 => self.steer(),
            8 => self.weigh(),
            9 | 10 if self.rogue.is_none() => self.rogue_joins(),
            _ => self.stop(),
        }
    }

    fn attach(&mut self) {
        self.attached = Some(Attached::to(PORT.into(), &[]));
        self.account.note("attach", "");
    }

    fn let_go(&mut self) {
        if let Some(attached) = self.attached.take() {
            attached.detach();
            self.account.note("detach", "");
        }
    }

    fn kill_relisten(&mut self) {
        if let Some(attached) = self.attached.take() {
            attached.kill();
            self.account.note("kill relisten", "");
        }
    }

    fn worker(&mut self) -> Option<u32> {
        self.random.of(&self.server.workers()).filter(|pid| process::alive(*pid))
    }

    fn kill(&mut self) {
        let Some(pid) = self.worker() else { return };
        let accepted = process::freeze_and_count(pid, PORT);
        process::kill(pid);
        self.account.bound += accepted;
        self.account.note("kill", &format!("{pid}, which had accepted {accepted}"));
        // The master starts another at once.
        wait_until("it is gone", seconds(20), || !process::alive(pid));
    }

    fn stop(&mut self) {
        let Some(pid) = self.worker() else { return };
        let lasts = millis(30 + self.random.below(900));
        process::signal(pid, Signal::STOP);
        self.stopped.push((Instant::now() + lasts, pid));
        self.account.note("stop", &format!("{pid} for {lasts:?}"));
    }

    /// Those whose time is over; all of them without a time.
    fn go_on(&mut self, until: Option<Instant>) {
        let (over, stopped) =
            self.stopped.drain(..).partition(|(end, _)| until.is_none_or(|until| *end <= until));
        self.stopped = stopped;
        for (_, pid) in over {
            process::signal(pid, Signal::CONT);
        }
    }

    /// Who is stopped can't end.
    fn reload(&mut self) {
        self.go_on(None);
        self.server.reload(1);
        self.account.note("reload", "");
    }

    fn more(&mut self) {
        if self.server.workers().len() < 6 {
            process::signal(self.server.pid(), Signal::TTIN);
            self.account.note("more", "");
        }
    }

    fn fewer(&mut self) {
        self.go_on(None);
        let before = self.server.workers().len();
        if before > 2 {
            process::signal(self.server.pid(), Signal::TTOU);
            wait_until("it has one worker fewer", seconds(20), || self.server.workers().len() < before);
            self.account.note("fewer", "");
        }
    }

    fn steer(&mut self) {
        let (Some(policy), Some(attached)) = (self.random.of(&POLICIES), &self.attached) else { return };
        attached.control(&["steer", policy]).ok();
        self.account.note("steer", policy);
    }

    fn weigh(&mut self) {
        let weights: Vec<_> = (0..2).map(|slot| format!("{slot}={}", self.random.below(4))).collect();
        let words: Vec<_> = weights.iter().map(String::as_str).collect();
        // A slot may not be there, and nobody may be left: then nothing changes.
        let said = cli(&[&["weight"], &words[..], &["--name", NAME]].concat());
        assert!(matches!(said.code(), Some(0 | 1)), "{said:?}");
        self.account.note("weight", &format!("{weights:?}: {:?}", said.code()));
    }

    fn rogue_joins(&mut self) {
        let deeds = [("rogue", ""), ("take the program away", rogue::DETACH), ("replace it", rogue::REPLACE)];
        let Some((what, deed)) = self.random.of(&deeds) else { return };
        let Some(attached) = &self.attached else { return };
        let restored = attached.status().totals.programs_restored;
        let rogue = Rogue::join(self.scene, deed);
        self.account.note(what, "");
        // Until then the kernel would reset what waits for a worker that goes.
        wait_until("the program is in force", seconds(20), || {
            attached.status().totals.programs_restored >= restored + u64::from(!deed.is_empty())
        });
        self.rogue = Some((Instant::now() + millis(self.random.below(1_000)), rogue));
    }

    fn rogue_leaves(&mut self) {
        if let Some((_, rogue)) = self.rogue.take() {
            let got = rogue.leave();
            self.account.stolen += got;
            self.account.say(&format!("the rogue leaves, it got {got}"));
        }
    }
}
