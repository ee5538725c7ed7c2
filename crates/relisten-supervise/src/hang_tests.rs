use super::*;
use proptest::prelude::*;

const AFTER: Millis = Millis(200);
const EVERY: u64 = 25;

/// A few workers, each with its queue, looked at every 25 ms.
struct Scene {
    watch: Watch<usize>,
    samples: Vec<Sample<usize>>,
    now: u64,
    /// What the look at its threads says.
    waits: Vec<Option<bool>>,
    findings: Vec<(u64, Finding<usize>)>,
}

impl Scene {
    fn new(workers: usize) -> Self {
        let sample = |id| Sample { id, waiting: 0, accepted: None, live: true, verdict: Verdict::Well };
        Self {
            watch: Watch::default(),
            samples: (0..workers).map(sample).collect(),
            now: 1_000,
            waits: vec![Some(true); workers],
            findings: Vec::new(),
        }
    }

    fn look(&mut self) -> Vec<Finding<usize>> {
        self.now += EVERY;
        let waits = &self.waits;
        let found = self.watch.look(Millis(self.now), AFTER, &self.samples, |id| waits[id]);
        for finding in &found {
            match *finding {
                Finding::Becomes(id, verdict) => self.samples[id].verdict = verdict,
                Finding::Rescue(id) => {
                    self.samples[id].waiting = 0;
                    self.watch.moved(id);
                }
            }
        }
        self.findings.extend(found.iter().map(|f| (self.now, *f)));
        found
    }

    fn looks(&mut self, ms: u64) {
        (0..ms / EVERY).for_each(|_| _ = self.look());
    }

    fn verdicts(&self) -> Vec<Verdict> {
        self.samples.iter().map(|s| s.verdict).collect()
    }

    fn hangs(&self) -> usize {
        self.findings.iter().filter(|(_, f)| matches!(f, Finding::Becomes(_, Verdict::Hung))).count()
    }
}

#[test]
fn a_stopped_worker_is_suspected_then_hung_and_its_queue_rescued() {
    let mut scene = Scene::new(4);
    scene.look();
    scene.samples[2].waiting = 3;
    scene.waits[2] = Some(false);
    let begin = scene.now + EVERY;
    scene.looks(400);
    assert_eq!(
        scene.findings,
        [
            (begin + 100, Finding::Becomes(2, Verdict::Suspected)),
            (begin + 200, Finding::Becomes(2, Verdict::Hung)),
            (begin + 200, Finding::Rescue(2)),
        ]
    );
}

#[test]
fn what_arrives_late_is_rescued_as_well() {
    let mut scene = Scene::new(2);
    scene.samples[0].waiting = 1;
    scene.waits[0] = Some(false);
    scene.looks(300);
    assert_eq!(scene.hangs(), 1);
    // A handshake that was half open.
    scene.samples[0].waiting = 1;
    scene.looks(200);
    assert_eq!(scene.findings.iter().filter(|(_, f)| *f == Finding::Rescue(0)).count(), 2);
    assert_eq!(scene.samples[0].verdict, Verdict::Hung);
}

#[test]
fn it_is_well_again_when_it_waits_for_connections_or_takes_one() {
    let mut scene = Scene::new(2);
    scene.samples[0].waiting = 1;
    scene.waits[0] = Some(false);
    scene.looks(300);
    scene.waits[0] = Some(true);
    scene.looks(200);
    assert_eq!(scene.samples[0].verdict, Verdict::Well);
    scene.waits[0] = Some(false);
    scene.samples[0].waiting = 2;
    scene.looks(225);
    assert_eq!(scene.samples[0].verdict, Verdict::Hung);
    scene.samples[0].waiting = 2;
    scene.look();
    scene.samples[0].waiting = 1;
    scene.look();
    assert_eq!(scene.samples[0].verdict, Verdict::Well);
}

#[test]
fn who_relapses_is_left_alone_for_longer_each_time() {
    let mut scene = Scene::new(2);
    scene.waits[0] = None;
    let mut hung = Vec::new();
    let mut since = 0;
    for _ in 0..8_000 {
        // It takes nothing, ever, but nobody can see that.
        scene.samples[0].waiting = 1;
        for finding in scene.look() {
            match finding {
                Finding::Becomes(0, Verdict::Hung) => since = scene.now,
                Finding::Becomes(0, Verdict::Well) if since > 0 => {
                    hung.push(scene.now - since);
                    since = 0;
                }
                _ => {}
            }
        }
    }
    assert!(hung.len() >= 5 && hung.windows(2).all(|w| w[1] > w[0]), "{hung:?}");
    assert!(hung[0] <= 1_100, "{hung:?}");
}

#[test]
fn overload_is_no_hang() {
    // All are in the same plight.
    let mut scene = Scene::new(4);
    scene.waits = vec![Some(false); 4];
    for sample in &mut scene.samples {
        sample.waiting = 5;
    }
    scene.looks(2_000);
    assert_eq!(scene.findings, []);
    // Two have an empty queue, but neither waits for connections: they are busy as well.
    scene.samples[2].waiting = 0;
    scene.samples[3].waiting = 0;
    scene.looks(2_000);
    assert_eq!(scene.hangs(), 0);
}

/// Each works at one request for seconds, with others in its queue, and takes the next one now and then.
#[test]
fn slow_ones_under_load_do_not_hang() {
    let mut scene = Scene::new(4);
    scene.waits = vec![Some(false); 4];
    for sample in &mut scene.samples {
        sample.waiting = 3;
    }
    for round in 0..400 {
        let id = round % 4;
        scene.samples[id].waiting -= 1;
        scene.looks(250);
        scene.samples[id].waiting += 1;
        scene.looks(125);
    }
    assert_eq!(scene.hangs(), 0);
}

/// The others have something in their queues at each look, and work it off quickly.
#[test]
fn under_load_one_is_found_by_the_pace_of_the_others() {
    let mut scene = Scene::new(3);
    scene.waits = vec![Some(false); 3];
    scene.samples[0].waiting = 5;
    for round in 0..20 {
        scene.samples[1].waiting = 3 - round % 2;
        scene.samples[2].waiting = 2 + round % 2;
        scene.look();
    }
    assert_eq!(scene.verdicts()[0], Verdict::Hung);
    assert_eq!(scene.hangs(), 1);
}

#[test]
fn the_last_one_is_never_hung() {
    let mut scene = Scene::new(3);
    for id in 0..3 {
        scene.samples[id].waiting = 4;
        scene.waits[id] = Some(false);
        scene.looks(1_000);
    }
    assert!(scene.verdicts().contains(&Verdict::Well), "{:?}", scene.verdicts());
    let last_rescue = scene.findings.iter().rev().find(|(_, f)| matches!(f, Finding::Rescue(_))).unwrap().0;
    let now = scene.now;
    scene.looks(3_000);
    assert!(last_rescue <= now, "nobody to move it to");
}

#[test]
fn a_draining_one_is_no_help_but_is_helped() {
    let mut scene = Scene::new(2);
    scene.samples[1].live = false;
    scene.samples[0].waiting = 1;
    scene.waits[0] = Some(false);
    scene.looks(1_000);
    assert_eq!(scene.hangs(), 0, "the other one leaves");
    scene.samples[0].waiting = 0;
    scene.waits[0] = Some(true);
    scene.samples[1].waiting = 1;
    scene.waits[1] = Some(false);
    scene.looks(1_000);
    assert_eq!(scene.hangs(), 1);
}

proptest! {
    /// A worker that accepts at least once in 100 ms is never hung, however long its queue and whatever arrives while it
    /// gets new ones.
    #[test]
    fn who_accepts_is_never_hung(
        gaps in prop::collection::vec(1u64..4, 100..300),
        arrivals in prop::collection::vec(0u64..6, 400),
        counted in any::<bool>(),
    ) {
        let mut scene = Scene::new(3);
        scene.waits[0] = Some(false);
        scene.samples[0].waiting = 10;
        let mut accepted = 0;
        let mut arrivals = arrivals.into_iter().cycle();
        for gap in gaps {
            for _ in 0..gap {
                if scene.samples[0].verdict == Verdict::Well {
                    scene.samples[0].waiting += arrivals.next().unwrap_or(0);
                }
                scene.look();
            }
            if scene.samples[0].waiting > 0 {
                scene.samples[0].waiting -= 1;
                accepted += 1;
            }
            scene.samples[0].accepted = counted.then_some(1 + accepted);
        }
        prop_assert_eq!(scene.hangs(), 0);
    }

    /// One that does not accept is found hung within the time and one look, and not before.
    #[test]
    fn who_does_not_is_found(workers in 2usize..9, waiting in 1u64..100, before in 0u64..40) {
        let mut scene = Scene::new(workers);
        scene.looks(before * EVERY);
        scene.samples[0].waiting = waiting;
        scene.waits[0] = Some(false);
        let begin = scene.now;
        scene.looks(400);
        let found = scene.findings.iter().find(|(_, f)| *f == Finding::Becomes(0, Verdict::Hung)).map(|(at, _)| at - begin);
        prop_assert!(found.is_some_and(|ms| (200..=200 + 2 * EVERY).contains(&ms)), "{:?}", found);
    }
}
