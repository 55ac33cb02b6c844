//! Isolation: a message whose assets make every call fail must not keep the other
//! messages of a shared call from being done.

use super::attempt::Attempt;
use super::state::State;

/// Into how many parts a shared call is split that failed.
const PARTS: usize = 2;

impl State<'_> {
    /// Notes that the service has answered a call, and splits the shared calls
    /// that failed before.
    pub(super) fn answered(&mut self) -> Vec<Attempt> {
        self.answers += 1;
        let deferred = std::mem::take(&mut self.deferred).into_iter();
        deferred
            .flat_map(|attempt| self.isolate(&attempt))
            .collect()
    }

    /// Splits the deferred batches whose messages were delivered before, though
    /// the service answers nothing else. Where there are none, what is deferred
    /// stays unfinished.
    pub(super) fn probe_deferred(&mut self) -> Vec<Attempt> {
        let batches = self.batches;
        let is_probed =
            |attempt: &mut Attempt| attempt.is_whole && batches[attempt.batch].receives() > 1;
        let probed: Vec<Attempt> = self.deferred.extract_if(.., is_probed).collect();
        let probed = probed.iter();
        probed.flat_map(|attempt| self.isolate(attempt)).collect()
    }

    /// Splits a failed call between its requests. Of a whole batch two groups are
    /// tried, and the others only once the service answers something: in an outage
    /// this costs two calls more. The groups are others at each delivery, and
    /// smaller ones, so that in the end the service answers one of them.
    pub(super) fn isolate(&mut self, attempt: &Attempt) -> Vec<Attempt> {
        let batch = &self.batches[attempt.batch];
        let receives = batch.receives().max(2) as usize;
        let mut groups = match attempt.is_shared(batch) {
            false => vec![self.part(attempt, attempt.assets.clone())],
            true if attempt.is_whole => self.split(attempt, 1 << (receives - 1).min(16)),
            true => self.split(attempt, PARTS),
        };
        for group in &mut groups {
            group.is_suspect = true;
        }
        if !attempt.is_whole {
            return groups;
        }
        let count = groups.len();
        groups.rotate_left(2 * receives % count);
        if receives % 2 == 1 {
            // The first may take all the time.
            groups.swap(0, 1);
        }
        let others = groups.split_off(2);
        if !others.is_empty() {
            let assets = others.into_iter().flat_map(|other| other.assets);
            let others = self.part(attempt, assets.collect());
            self.deferred.push(others);
        }
        groups
    }
}
