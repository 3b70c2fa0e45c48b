//! `exporter-worker doctor`: what both services look at (see [`model::doctor`]), and what only a worker depends on.

use std::num::NonZero;
use std::thread::available_parallelism;

use model::doctor::database::Demand;
use model::doctor::{self, Doctor, Finding, Service, broker, database, host, storage};
use model::limits;
use model::settings::{BrokerSettings, Variables};

use crate::config::WorkerSettings;
use crate::worker;

/// Connections that a running job has of its own: for reading or loading, and for its heartbeat.
const CONNECTIONS_OF_JOB: u32 = 2;

/// Looks at everything. The report, and the exit code: 0 all is well, 1 there are faults (with `strict` also warnings),
/// 2 the settings cannot be read.
pub async fn examine(variables: &Variables, strict: bool) -> (Doctor, u8) {
    let mut doctor = Doctor::new("exporter-worker");
    let mut faults = WorkerSettings::faults(variables);
    let management = BrokerSettings::management_url(variables).unwrap_or_else(|fault| {
        faults.push(fault);
        None
    });
    let settings = match WorkerSettings::read(variables) {
        Ok(settings) if faults.is_empty() => settings,
        Ok(_) | Err(_) => {
            doctor::settings(&mut doctor, &faults, "");
            return (doctor, 2);
        }
    };
    doctor::settings(&mut doctor, &[], "all can be read; `exporter-worker run --check-config` prints them");
    let slots = settings.work.slots as u32;
    let demand = Demand {
        url: &settings.database.url,
        service: Service::Worker,
        // One of them for what is removed step by step.
        connections: slots * (1 + CONNECTIONS_OF_JOB) + worker::CHORES + 1,
    };
    let mut asked = database::examine(&mut doctor, &demand).await;
    storage::examine_area(&mut doctor, &settings.storage, &mut asked).await;
    storage::examine_blobs(&mut doctor, &settings.storage, &mut asked).await;
    storage::examine_scratch(&mut doctor, &settings.storage).await;
    broker::examine(&mut doctor, &settings.broker, management.as_ref(), Service::Worker).await;
    host::internal_port(&mut doctor, &settings.internal).await;
    let cores = available_parallelism().map_or(1, NonZero::get);
    doctor.note("slots", slots_for(settings.work.slots, cores));
    let wanted = limits::WORKER_MEMORY * u64::from(slots);
    doctor.note("memory", host::memory(wanted, "raise it, or lower WORKER_SLOTS"));
    doctor.note("open files", host::open_files(u64::from(slots) * limits::OPEN_FILES_OF_JOB));
    let code = doctor.exit_code(strict);
    (doctor, code)
}

/// One job uses all cores: more jobs at once are for many small cells, and cost memory.
fn slots_for(slots: usize, cores: usize) -> Finding {
    let seen = format!("{slots} jobs at once on {cores} cores");
    match slots > 4 * cores {
        true => Finding::warning(seen, "lower WORKER_SLOTS: one job uses all cores, so more wait for each other"),
        false => Finding::ok(seen),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_slots_are_told() {
        assert_eq!(slots_for(8, 2), Finding::ok("8 jobs at once on 2 cores"));
        assert_ne!(slots_for(9, 2), Finding::ok("9 jobs at once on 2 cores"));
    }

    #[test]
    fn every_section_tells_its_fault() {
        let faults = WorkerSettings::faults(&Variables::table(&[("WORKER_SLOTS", "0"), ("LOG_FORMAT", "xml")]));
        let names: Vec<String> =
            faults.iter().map(|f| f.to_string().split(' ').next().unwrap_or_default().into()).collect();
        assert_eq!(names, ["DATABASE_URL", "AMQP_URL", "UNIT_FQDN", "SNAPSHOT_DIR", "LOG_FORMAT", "WORKER_SLOTS"]);
    }
}
