//! The fault campaign: workers are killed, stopped and let go on, generations change, slots come and go, policies and
//! weights change, somebody joins the group and takes its program away; all at random and at once, under load. Every
//! connection is accounted for: none is lost but what a killed worker had accepted, and what a rogue had.
//!
//! `RELISTEN_E2E_VERBOSE=1 RELISTEN_CAMPAIGN_SECONDS=3600 cargo test -p relisten-e2e --test campaign python` shows how
//! many faults and connections there were; `cargo xtask campaign` goes on until there were many.

use relisten_e2e::campaign::{Account, Random, lasts};
use relisten_e2e::load::{self, Load, lab};
use relisten_e2e::rogue::{self, Rogue};
use relisten_e2e::{
    Finished, Kind, Relisten, Scene, Server, Test, cli, millis, per_server, process, seconds,
};
use rustix::process::Signal;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const POLICIES: [&str; 8] =
    ["hash", "random", "round-robin", "least-connections", "cpu", "client-ip", "weighted", "auto"];
const MOST_WORKERS: u64 = 6;

fn campaign(kind: Kind) {
    let short = if rustix::process::geteuid().is_root() { 10 } else { 6 };
    let lasts = lasts(short);
    Test::new().server(kind).limit(lasts + seconds(120)).run(|scene| {
        let server = kind.server();
        // Nobody may be cut who only takes his time: a stopped worker does.
        let drain = format!("{}s", lasts.as_secs() + 60);
        let options = ["--drain", &drain, "--backend", if scene.is_root() { "ebpf" } else { "cbpf" }];
        let relisten = scene.relisten().options(options).server(&server).workers(4).start();
        let mut campaign = Campaign::new(scene, &relisten, &server);
        let mut loads = vec![Load::on(&server)];
        if let Some(slow) = server.slow {
            let mut plan = load::plan(server.address, &format!("{slow}150"));
            plan.pace = lab::Pace::Clients(8);
            loads.push(Load::launch(plan));
        }
        while loads[0].elapsed() < lasts || campaign.account.is_thin() {
            let pause = millis(20 + campaign.random.below(180));
            loads[0].run_until(loads[0].elapsed() + pause);
            campaign.fault();
        }
        let workers = campaign.peace();
        relisten
            .wait_status("all serve", seconds(60), |s| s.state == "running" && s.ready().len() == workers);
        loads[0].more(200, seconds(30));
        campaign.account.settle(scene.name(), loads);
        relisten.settle(workers, seconds(60));
        relisten.stop(seconds(30));
        scene.nothing_left(&[server.address.port()]);
    });
}
per_server!(campaign, [python = Python, built_in = BuiltIn]);

/// Commands that take their time, while other faults happen.
struct Command {
    what: String,
    thread: JoinHandle<Finished>,
}

struct Campaign<'a> {
    scene: &'a Scene,
    relisten: &'a Relisten,
    port: u16,
    random: Random,
    account: Account,
    workers: u64,
    /// Stopped, until then.
    stopped: Vec<(Instant, u32)>,
    command: Option<Command>,
    /// In the group until then, and when at least so many programs have been put back.
    rogue: Option<(Instant, u64, Rogue)>,
}

impl<'a> Campaign<'a> {
    fn new(scene: &'a Scene, relisten: &'a Relisten, server: &Server) -> Self {
        Self {
            scene,
            relisten,
            port: server.address.port(),
            random: Random::seeded(),
            account: Account::new(),
            workers: 4,
            stopped: Vec::new(),
            command: None,
            rogue: None,
        }
    }

    /// One more.
    fn fault(&mut self) {
        self.go_on(Instant::now());
        self.reap_command(false);
        self.rogue_leaves(false);
        match self.random.below(14) {
            0..3 => self.kill(),
            3..7 => self.stop(),
            7 => {
                let relisten = self.relisten.name().to_owned();
                self.start("reload", "", move || cli(&["reload", &relisten]));
            }
            8 => self.scale(),
            9 | 10 => self.steer(),
            11 => self.weigh(),
            _ if self.scene.is_root() => self.rogue_joins(),
            _ => self.kill(),
        }
    }

    /// A worker: serving, starting, leaving.
    fn worker(&mut self) -> Option<u32> {
        let pids: Vec<_> = self.relisten.status().workers.iter().filter_map(|worker| worker.pid).collect();
        self.random.of(&pids).filter(|pid| process::alive(*pid))
    }

    fn kill(&mut self) {
        let Some(pid) = self.worker() else { return };
        let accepted = process::freeze_and_count(pid, self.port);
        process::kill(pid);
        self.account.bound += accepted;
        self.account.note("kill", &format!("{pid}, which had accepted {accepted}"));
    }

    fn stop(&mut self) {
        let Some(pid) = self.worker() else { return };
        let lasts = millis(30 + self.random.below(900));
        for pid in process::family(pid) {
            process::signal(pid, Signal::STOP);
            self.stopped.push((Instant::now() + lasts, pid));
        }
        self.account.note("stop", &format!("{pid} for {lasts:?}"));
    }

    fn go_on(&mut self, until: Instant) {
        let (over, stopped) = self.stopped.drain(..).partition(|(end, _)| *end <= until);
        self.stopped = stopped;
        for (_, pid) in over {
            process::signal(pid, Signal::CONT);
        }
    }

    fn scale(&mut self) {
        let workers = 1 + self.random.below(MOST_WORKERS);
        let name = self.relisten.name().to_owned();
        let scale = move || cli(&["scale", &workers.to_string(), &name]);
        if self.start("scale", &workers.to_string(), scale) {
            self.workers = workers;
        }
    }

    fn steer(&mut self) {
        let policy = self.random.of(&POLICIES).expect("there are some");
        self.relisten.control(&["steer", policy]).ok();
        self.account.note("steer", policy);
    }

    fn weigh(&mut self) {
        let weights: Vec<_> =
            (0..MOST_WORKERS).map(|slot| format!("{slot}={}", self.random.below(4))).collect();
        let words: Vec<_> = weights.iter().map(String::as_str).collect();
        // Some slots may not be there, and nobody may be left: then nothing changes.
        let said = cli(&[&["weight"], &words[..], &["--name", self.relisten.name()]].concat());
        assert!(matches!(said.code(), Some(0 | 1)), "{said:?}");
        self.account.note("weight", &format!("{weights:?}: {:?}", said.code()));
    }

    /// Is false while another one is at work.
    fn start(
        &mut self,
        fault: &'static str,
        text: &str,
        run: impl FnOnce() -> Finished + Send + 'static,
    ) -> bool {
        if self.command.is_some() {
            return false;
        }
        let what = format!("{fault} {text}");
        self.command = Some(Command { what, thread: std::thread::spawn(run) });
        self.account.note(fault, text);
        true
    }

    /// What the command said. A reload is rolled back when its new workers are killed, and a command gives up when that
    /// goes on for too long.
    fn reap_command(&mut self, wait: bool) {
        let Some(command) = self.command.take_if(|command| wait || command.thread.is_finished()) else {
            return;
        };
        let said = command.thread.join().expect("a command");
        let why = said.err.lines().next().unwrap_or_default();
        self.account.say(&format!("{} is over: {:?} {why}", command.what, said.code()));
        assert!(matches!(said.code(), Some(0 | 1)), "{}: {said:?}", command.what);
    }

    fn rogue_joins(&mut self) {
        if self.rogue.is_some() {
            return;
        }
        let restored = self.relisten.status().totals.programs_restored;
        let (what, deed) = self
            .random
            .of(&[("rogue", ""), ("detach", rogue::DETACH), ("replace", rogue::REPLACE)])
            .expect("there are some");
        let rogue = Rogue::join(self.scene, deed);
        let end = Instant::now() + millis(100 + self.random.below(1_500));
        self.rogue = Some((end, restored + u64::from(what != "rogue"), rogue));
        self.account.note(what, "");
    }

    /// It stays until our program is in force again: else the kernel would reset what waits for it.
    fn rogue_leaves(&mut self, wait: bool) {
        let Some((end, restored, _)) = &self.rogue else { return };
        let bound = if wait { Duration::from_secs(10) } else { Duration::ZERO };
        let restored = *restored;
        if !wait && *end > Instant::now() {
            return;
        }
        let is_restored = |relisten: &Relisten| relisten.status().totals.programs_restored >= restored;
        if !is_restored(self.relisten) {
            if !wait {
                return;
            }
            self.relisten
                .wait_status("the program is put back", bound, |s| s.totals.programs_restored >= restored);
        }
        let (_, _, rogue) = self.rogue.take().expect("it is there");
        let got = rogue.leave();
        self.account.stolen += got;
        self.account.say(&format!("the rogue leaves, it got {got}"));
    }

    /// No more faults. How many workers there should be now.
    fn peace(&mut self) -> usize {
        self.go_on(Instant::now() + Duration::from_secs(3600));
        self.reap_command(true);
        self.rogue_leaves(true);
        self.workers as usize
    }
}
