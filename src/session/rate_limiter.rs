//! Limits the rate of requests to one service to what it lets through.
//!
//! Owns what throttled and accepted requests say of the service's rate. Pure: it
//! is given the time, and neither waits nor sends.
//!
//! SiteWise's request rate is not documented, and whoever else calls it uses
//! some of it up. So nothing is assumed, and nothing limited, until a request is
//! throttled. Then:
//!
//! 1. *Search.* The next request goes after [`FIRST_PAUSE`]. Each throttled one
//!    halves the rate, each accepted one raises it by a quarter, until one is
//!    throttled after others were accepted. While none is accepted, requests go
//!    one at a time, however long a response takes.
//! 2. *Estimate.* A token bucket throttles when it is empty. Between two such
//!    moments it has let through exactly what flowed in: the accepted requests
//!    divided by the time are the rate that this caller gets.
//! 3. *Follow.* From then on the rate starts at four fifths of the estimate, is
//!    back at it after a cycle of requests, and goes on growing, for the service
//!    may let through more by now, until a request is throttled and the rate is
//!    estimated anew. Requests throttled one after the other lower it by steps,
//!    for the service may let through less.
//!
//! A cycle is 7 requests at 1/s, 14 at 4/s, 70 at 100/s, and never longer than
//! five seconds: the lower the rate, the fewer requests. Several callers that
//! estimate a bucket have the same fraction of their requests throttled, so that the
//! slower ones gain on the faster. A little jitter in each pause keeps them from
//! calling in step, where always the same one would find the bucket empty.
//!
//! What was tried before, against a model of the same bucket: the SDK's
//! adaptive mode (CUBIC on the rate, in seconds) is throttled in a fifth of the
//! calls at 2/s and takes three times as long as it must at 50/s.

use std::time::Duration;

use tokio::time::Instant;

/// The pause after the first throttled request. A service that lets through
/// fewer requests costs a few more throttled ones, one that lets through more a
/// little time.
pub const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between two calls.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How many requests of a kind, one after the other, and for how long, must be
/// throttled before all of the kind are given up. A search makes seven requests
/// in that time.
const GIVE_UP: (u32, Duration) = (7, Duration::from_secs(3));

/// How long the limiter remembers what a service has let through. By then its
/// bucket is full again, or others use it.
pub const MEMORY: Duration = Duration::from_secs(60);

/// The highest rate, in calls per second: no limit in practice, and a number
/// from which there is a way back.
const HIGHEST_RATE: f64 = 100_000.0;

/// The lowest rate, and the lowest estimate: neither would ever come back from
/// next to nothing.
const LOWEST_RATE: f64 = 1.0 / LONGEST_PAUSE.as_secs_f64();

/// What a search multiplies the rate by when a call is throttled or accepted.
const SEARCH_DOWN: f64 = 0.5;
const SEARCH_UP: f64 = 1.25;

/// The fraction of the estimate at which the rate starts after a request was
/// throttled.
const BACK_OFF: f64 = 0.8;

/// What the estimate is multiplied by when one throttled call follows another.
const STEP_DOWN: f64 = 0.85;

/// Throttled requests, one after the other, before the steps get as large as in
/// a search: of several callers of one bucket, one may be unlucky that often.
const SMALL_STEPS: u32 = 3;

/// Calls of a cycle at a estimate of one call per second; it grows with the root
/// of the estimate.
const CYCLE: f64 = 7.0;

/// The longest cycle in time.
const LONGEST_CYCLE: Duration = Duration::from_secs(5);

/// How much jitter lengthens or shortens a pause.
const JITTER: f64 = 0.1;

/// What a call is for. All calls estimate one rate; but a service may throttle one
/// kind alone, and then only that kind is given up.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RequestKind {
    /// It disassociates assets.
    Call,
    /// It reads a project.
    Read,
}

/// Limits the rate of the requests to one service.
#[derive(Debug, Default)]
pub struct RateLimiter {
    limit: Option<Limit>,
    last_start: Option<Instant>,
    /// calls throttled one after the other, each started after the one before
    /// was answered
    throttled_in_a_row: u32,
    /// the same, by kind
    streaks: [Streak; 2],
}

/// Calls of one kind throttled one after the other.
#[derive(Clone, Copy, Debug, Default)]
struct Streak {
    throttled: u32,
    /// when the first of them was answered
    since: Option<Instant>,
}

/// What is known since a call was throttled.
#[derive(Debug)]
struct Limit {
    /// calls per second
    rate: f64,
    /// calls per second that the service has been seen to let through; `None`
    /// while that is searched for
    estimate: Option<f64>,
    /// when the next call may start
    next: Instant,
    /// when the service was last found to have nothing left
    empty_at: Instant,
    /// calls accepted since then
    accepted: u32,
    /// when that was answered: calls started before say nothing new
    known_at: Instant,
    /// how long that took
    response_time: Duration,
}

impl RateLimiter {
    /// Returns when the next call may start: `now`, or later.
    pub fn next_start(&mut self, now: Instant) -> Instant {
        let is_old = |last: Instant| now.saturating_duration_since(last) > MEMORY;
        if self.last_start.is_some_and(is_old) {
            *self = Self::default();
        }
        self.limit.as_ref().map_or(now, |limit| limit.next.max(now))
    }

    /// Notes that a call starts. `jitter` is a random number from 0 to 1.
    pub fn started(&mut self, now: Instant, jitter: f64) {
        self.last_start = Some(now);
        if let Some(limit) = &mut self.limit {
            let jitter = 1.0 + JITTER * (2.0 * jitter - 1.0);
            let mut pause = limit.pause().mul_f64(jitter);
            if limit.estimate.is_none() && limit.accepted == 0 {
                pause = pause.max(limit.response_time);
            }
            limit.next = limit.next.max(now) + pause;
        }
    }

    /// Notes that the call started at `start` was let through, whatever the
    /// answer is otherwise.
    pub fn accepted(&mut self, kind: RequestKind, start: Instant, now: Instant) {
        let Some(limit) = &mut self.limit else {
            return;
        };
        if start <= limit.known_at {
            return;
        }
        self.throttled_in_a_row = 0;
        self.streaks[kind as usize] = Streak::default();
        limit.accepted += 1;
        let rate = match limit.estimate {
            None => limit.rate * SEARCH_UP,
            Some(estimate) => {
                let calls = f64::from(limit.accepted) / (CYCLE * estimate.sqrt());
                let time = now.duration_since(limit.empty_at).as_secs_f64();
                let part = calls.max(time / LONGEST_CYCLE.as_secs_f64());
                estimate * part.max(BACK_OFF + (1.0 - BACK_OFF) * part)
            }
        };
        limit.rate = rate.max(limit.rate).min(HIGHEST_RATE);
        limit.next = limit.next.min(now + limit.pause());
    }

    /// Notes that the call started at `start` was throttled, with the pause
    /// that the service asks for, if any. None is longer than [`MEMORY`].
    pub fn throttled(
        &mut self,
        kind: RequestKind,
        start: Instant,
        now: Instant,
        pause: Option<Duration>,
    ) {
        let after = now + pause.unwrap_or_default().min(MEMORY);
        let Some(limit) = &mut self.limit else {
            self.throttled_in_a_row = 1;
            self.streaks = Default::default();
            self.streaks[kind as usize].add(now);
            self.limit = Some(Limit {
                rate: 1.0 / FIRST_PAUSE.as_secs_f64(),
                estimate: None,
                next: after.max(now + FIRST_PAUSE),
                empty_at: now,
                accepted: 0,
                known_at: now,
                response_time: now.duration_since(start),
            });
            return;
        };
        if start <= limit.known_at {
            limit.next = limit.next.max(after);
            return;
        }
        self.throttled_in_a_row += 1;
        self.streaks[kind as usize].add(now);
        limit.known_at = now;
        limit.response_time = now.duration_since(start);
        limit.rate = if limit.accepted > 0 {
            // The bucket had anything between nothing and one token before.
            let accepted = f64::from(limit.accepted) + 0.5;
            let time = start.duration_since(limit.empty_at).as_secs_f64();
            // It may have been full for long, where the rate was far below the service's.
            let least = limit
                .estimate
                .map_or(0.0, |_| limit.rate / 2.0)
                .max(LOWEST_RATE);
            let estimate = (accepted / time).clamp(least, limit.rate * 1.5);
            limit.estimate = Some(estimate);
            limit.empty_at = start;
            limit.accepted = 0;
            estimate * BACK_OFF
        } else if let Some(estimate) = &mut limit.estimate {
            let step = if self.throttled_in_a_row <= SMALL_STEPS {
                STEP_DOWN
            } else {
                SEARCH_DOWN
            };
            *estimate = LOWEST_RATE.max(*estimate * step);
            estimate.min(limit.rate)
        } else {
            limit.rate * SEARCH_DOWN
        };
        limit.rate = limit.rate.max(LOWEST_RATE);
        limit.next = after.max(now + limit.pause());
    }

    /// Returns whether so many calls of a kind were throttled one after the other
    /// that this invocation should give up all of that kind.
    pub fn should_give_up(&self, kind: RequestKind, now: Instant) -> bool {
        let (calls, time) = GIVE_UP;
        let Streak { throttled, since } = self.streaks[kind as usize];
        throttled >= calls && since.is_some_and(|since| now.duration_since(since) >= time)
    }
}

impl Streak {
    fn add(&mut self, now: Instant) {
        self.throttled += 1;
        self.since.get_or_insert(now);
    }
}

impl Limit {
    fn pause(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// A rate limiter, and a clock that starts at zero.
    struct Run {
        limiter: RateLimiter,
        start: Instant,
    }

    impl Run {
        fn new() -> Self {
            Self {
                limiter: RateLimiter::default(),
                start: Instant::now(),
            }
        }

        /// One whose first call was throttled, and the ten of the next second not.
        fn searching() -> Self {
            let mut run = Self::new();
            run.call(0, false);
            for at in (60..1010).step_by(100) {
                run.call(at, true);
            }
            run
        }

        fn at(&self, milliseconds: u32) -> Instant {
            self.start + MILLISECOND * milliseconds
        }

        /// When the next call may start, in milliseconds.
        fn next(&mut self, now: u32) -> u128 {
            let now = self.at(now);
            let next = self.limiter.next_start(now);
            next.duration_since(self.start).as_millis()
        }

        /// A call that is answered ten milliseconds after its start.
        fn call(&mut self, at: u32, is_accepted: bool) {
            let (start, end) = (self.at(at), self.at(at + 10));
            self.limiter.started(start, 0.5);
            if is_accepted {
                self.limiter.accepted(RequestKind::Call, start, end);
            } else {
                self.limiter.throttled(RequestKind::Call, start, end, None);
            }
        }

        /// Makes so many calls, each when it may start, and returns when the next
        /// one may.
        fn calls(&mut self, mut at: u32, count: usize, are_accepted: bool) -> u32 {
            for _ in 0..count {
                self.call(at, are_accepted);
                at = u32::try_from(self.next(at + 10)).expect("soon");
            }
            at
        }

        fn should_give_up(&self, at: u32) -> bool {
            self.limiter.should_give_up(RequestKind::Call, self.at(at))
        }

        fn limit(&self) -> &Limit {
            self.limiter.limit.as_ref().expect("a call was throttled")
        }

        fn estimate(&self) -> Option<f64> {
            self.limit().estimate
        }
    }

    #[test]
    fn nothing_is_limited_until_a_call_is_throttled() {
        let mut run = Run::new();
        for at in 0..1000 {
            assert_eq!(run.next(at), u128::from(at));
            run.call(at, true);
        }
    }

    #[test]
    fn a_search_waits_twice_as_long_each_time_and_gives_up_in_the_end() {
        let mut run = Run::new();
        let mut at = 0;
        let mut pauses = Vec::new();
        while !run.should_give_up(at) {
            run.call(at, false);
            let next = u32::try_from(run.next(at)).expect("soon");
            pauses.push(next - at - 10);
            at = next;
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200]);
        run.call(at, true);
        assert!(!run.should_give_up(at), "something was let through");
    }

    #[test]
    fn a_search_gains_a_quarter_with_each_call_that_is_let_through() {
        let mut run = Run::new();
        run.call(0, false);
        assert_eq!((run.limit().rate, run.next(60)), (20.0, 60));
        run.call(60, true);
        assert_eq!((run.limit().rate, run.next(70)), (25.0, 60 + 50));
        run.call(110, true);
        assert_eq!((run.limit().rate, run.next(120)), (31.25, 110 + 40));
    }

    #[test]
    fn jitter_makes_a_pause_up_to_a_tenth_shorter_or_longer() {
        for (jitter, pause) in [(0.0, 45), (0.25, 47), (0.5, 50), (1.0, 55)] {
            let mut run = Run::new();
            run.call(0, false);
            run.limiter.started(run.at(60), jitter);
            assert_eq!(run.next(60), 60 + pause, "{jitter}");
        }
    }

    #[test]
    fn however_long_all_was_throttled_the_rate_comes_back_with_the_service() {
        let mut run = Run::searching();
        let from = run.calls(1010, 100, false);
        let at = run.calls(from, 20, true);
        assert!(at - from < 30_000, "{} ms for twenty calls", at - from);
    }

    /// How many calls start in a time in which none is answered.
    fn calls_in(run: &mut Run, from: Instant, time: Duration) -> usize {
        let starts = std::iter::from_fn(|| {
            let start = run.limiter.next_start(from);
            (start < from + time).then(|| run.limiter.started(start, 0.5))
        });
        starts.count()
    }

    #[test]
    fn a_search_makes_one_call_at_a_time_until_one_is_accepted() {
        let slow = Duration::from_secs(4);
        for answers in 1..5 {
            let mut run = Run::new();
            let mut start = run.start;
            for _ in 0..answers {
                run.limiter.started(start, 0.5);
                run.limiter
                    .throttled(RequestKind::Call, start, start + slow, None);
                start = run.limiter.next_start(start + slow);
            }
            assert_eq!(calls_in(&mut run, start, slow), 1, "{answers}");
            let answered = start + slow;
            run.limiter.accepted(RequestKind::Call, start, answered);
            assert!(calls_in(&mut run, answered, slow) > 5, "{answers}");
        }
    }

    #[test]
    fn bad_luck_in_a_short_time_is_no_reason_to_give_up() {
        let mut run = Run::searching();
        for at in (1010..3900).step_by(100) {
            run.call(at, false);
            assert!(!run.should_give_up(at + 10), "{at}");
        }
        run.call(4010, false);
        assert!(run.should_give_up(4020));
    }

    #[test]
    fn no_pause_is_longer_than_the_longest() {
        let mut run = Run::new();
        let at = run.calls(0, 20, false);
        run.call(at, false);
        assert_eq!(
            run.next(at),
            u128::from(at) + 10 + LONGEST_PAUSE.as_millis()
        );
    }

    #[test]
    fn calls_of_before_say_nothing_new() {
        let mut run = Run::new();
        let starts: Vec<Instant> = (0..8).map(|at| run.at(at)).collect();
        for start in &starts {
            run.limiter.started(*start, 0.5);
        }
        let end = run.at(20);
        for start in &starts[..4] {
            run.limiter.throttled(RequestKind::Call, *start, end, None);
        }
        assert_eq!(run.next(20), 70, "one reason, one step");
        for start in &starts[4..] {
            run.limiter.accepted(RequestKind::Call, *start, end);
        }
        assert_eq!(run.next(20), 70);
    }

    #[test]
    fn between_two_throttled_calls_the_accepted_ones_are_the_share() {
        // Found empty at 10 ms, and again at 1010 ms.
        let mut run = Run::searching();
        assert_eq!(run.estimate(), None);
        run.call(1010, false);
        assert_eq!(run.estimate(), Some(10.5));
        // At four fifths of the estimate.
        assert_eq!(run.next(1020), 1020 + 119);
    }

    #[test]
    fn a_share_is_regained_and_passed_while_nothing_is_throttled() {
        let mut run = Run::searching();
        run.call(1010, false);
        let mut rates = Vec::new();
        for number in 1..=100 {
            run.call(2000 + number, true);
            rates.push(run.limit().rate);
        }
        let cycle = 7.0 * 10.5_f64.sqrt();
        let reached = rates.iter().filter(|rate| **rate < 10.5).count();
        assert_eq!(reached, cycle as usize, "back at it after a cycle");
        let doubled = rates.iter().filter(|rate| **rate < 21.0).count();
        assert_eq!(doubled, (2.0 * cycle) as usize);
        assert!(rates.is_sorted(), "it never falls on its own");
    }

    #[test]
    fn halfway_through_a_cycle_the_rate_is_halfway_back_at_the_share() {
        let mut run = Run::searching();
        run.call(1010, false);
        assert_eq!(run.limit().rate, 10.5 * 0.8);
        // Half of five seconds, and far fewer than half of the calls.
        run.call(3500, true);
        assert!((run.limit().rate - 10.5 * 0.9).abs() < 1e-9);
    }

    #[test]
    fn a_bucket_that_was_full_for_long_halves_the_rate_at_most() {
        let mut run = Run::searching();
        run.call(1010, false);
        run.call(31_000, true);
        let rate = run.limit().rate;
        run.call(31_010, false);
        assert_eq!(run.estimate(), Some(rate / 2.0));
    }

    #[test]
    fn a_full_buckets_burst_is_not_taken_for_the_share() {
        let mut run = Run::new();
        run.call(0, false);
        for at in 11..15 {
            run.call(at, true);
        }
        let rate = run.limit().rate;
        run.call(30, false);
        assert_eq!(run.estimate(), Some(rate * 1.5));
    }

    #[test]
    fn one_throttled_call_after_the_other_lowers_the_share() {
        let mut run = Run::new();
        run.call(0, false);
        run.call(60, true);
        run.call(560, false);
        let estimate = run.estimate().expect("measured");
        run.call(2000, false);
        run.call(4000, false);
        assert_eq!(run.estimate(), Some(estimate * STEP_DOWN * STEP_DOWN));
    }

    #[test]
    fn a_pause_that_the_service_asks_for_is_kept() {
        let mut run = Run::new();
        let (start, end) = (run.at(0), run.at(10));
        let pause = Duration::from_secs(7);
        run.limiter.started(start, 0.5);
        run.limiter
            .throttled(RequestKind::Call, start, end, Some(pause));
        assert_eq!(run.next(10), 7010);
        run.limiter
            .throttled(RequestKind::Call, start, end, Some(2 * pause));
        assert_eq!(run.next(10), 14_010, "by a call of before too");
        run.limiter
            .throttled(RequestKind::Call, start, end, Some(Duration::MAX));
        assert_eq!(run.next(10), 60_010, "but not for ever");
    }

    #[test]
    fn however_fast_it_gets_there_is_a_way_back() {
        let mut run = Run::new();
        run.call(0, false);
        for at in 100..10_000 {
            run.call(at, true);
        }
        for at in (20_000..20_400).step_by(20) {
            run.call(at, false);
        }
        let rate = run.limit().rate;
        assert!(rate < 10.0, "{rate}");
    }

    #[test]
    fn what_is_known_is_forgotten_after_a_while_without_calls() {
        let mut run = Run::new();
        for at in [0, 100, 300, 600, 1100, 2000, 4000] {
            run.call(at, false);
        }
        assert!(run.should_give_up(4010));
        assert_eq!(run.next(4010), 4010 + 3200);
        assert_eq!(run.next(64_000), 64_000, "due at last");
        assert!(run.should_give_up(64_000), "still known");
        assert_eq!(run.next(64_001), 64_001);
        assert!(!run.should_give_up(64_001));
    }

    #[test]
    fn each_kind_is_given_up_for_its_own_throttled_calls_only() {
        let mut run = Run::new();
        run.call(0, false);
        for at in (100..6000).step_by(100) {
            let (start, end) = (run.at(at), run.at(at + 10));
            run.limiter.throttled(RequestKind::Read, start, end, None);
            run.call(at + 20, true);
        }
        assert!(run.limiter.should_give_up(RequestKind::Read, run.at(6000)));
        assert!(!run.limiter.should_give_up(RequestKind::Call, run.at(6000)));
    }
}
