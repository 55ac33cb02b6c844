//! Keeps the order of FIFO message groups.

use std::collections::HashSet;

use super::{Destination, Settlement};

/// Holds back what comes behind a record that stays in its queue: every later
/// record of its message group stays too, and stores nothing. `settlements` are
/// in the order of the records.
pub(super) fn hold_back_groups(settlements: &mut [Settlement<'_>]) {
    let stays = |settlement: &Settlement<'_>| {
        let mut unresolved = settlement.unresolved.iter();
        unresolved.any(|one| one.destination == Destination::Source)
    };
    for (settlement, is_behind) in behind(settlements, stays).into_iter().enumerate() {
        if is_behind {
            settlements[settlement].hold_back();
        }
    }
}

/// Tells, for each record, whether it must be redelivered: because something of
/// it must be kept, or because an earlier record of its group is redelivered.
pub fn needs_redelivery(settlements: &[Settlement<'_>]) -> Vec<bool> {
    let behind = behind(settlements, |one| one.must_be_kept());
    let settlements = settlements.iter().zip(behind);
    settlements
        .map(|(settlement, is_behind)| is_behind || settlement.must_be_kept())
        .collect()
}

/// Tells, for each record, whether an earlier one of its group stays.
fn behind<'a>(
    settlements: &[Settlement<'a>],
    stays: impl Fn(&Settlement<'a>) -> bool,
) -> Vec<bool> {
    let mut blocked: HashSet<&str> = HashSet::new();
    settlements
        .iter()
        .map(|settlement| {
            let Some(group) = settlement.received.message.fifo_group.as_deref() else {
                return false;
            };
            let is_behind = blocked.contains(group);
            if stays(settlement) {
                blocked.insert(group);
            }
            is_behind
        })
        .collect()
}
