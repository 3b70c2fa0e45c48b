//! Several hosts need a storage that all of them see. A host that starts beside another one is refused when it has
//! directories of its own: its snapshots would be listed, and could be read nowhere else.

use sqlx::{PgConnection, PgPool};

use crate::error_chain::Chain;
use crate::limits;
use crate::settings::StorageSettings;
use crate::store::{StoreError, hosts};

/// Services run on another host, and the storage is this one's own.
#[derive(Debug, thiserror::Error)]
#[error(
    "services run on another host ({other}), and STORAGE=directory is for one host: use STORAGE=s3, or say \
     STORAGE_SHARED=true when all hosts have the same directories mounted. A host that is gone counts for {} s. Where \
     containers have kernels of their own, give those of one host the same HOST_ID",
    limits::HOST_GONE.as_secs()
)]
pub struct OwnStorage {
    other: String,
}

/// Admits this process, and goes on to report its host in the background. Without an answer from the database it is
/// admitted for now, and ended when there is one and it says otherwise.
///
/// # Errors
/// [`OwnStorage`].
pub async fn admit(pool: &PgPool, settings: &StorageSettings) -> Result<(), OwnStorage> {
    let admitted = match report(pool, settings).await {
        Ok(()) => true,
        Err(Refused::Own(refused)) => return Err(refused),
        Err(Refused::Unknown(error)) => {
            tracing::debug!(error = %Chain(&error), "this host cannot be reported yet");
            false
        }
    };
    tokio::spawn(report_for_ever(pool.clone(), settings.clone(), admitted));
    Ok(())
}

async fn report_for_ever(pool: PgPool, settings: StorageSettings, mut admitted: bool) {
    loop {
        let pause = if admitted { limits::HOST_REPORT } else { limits::LOOK };
        tokio::time::sleep(pause).await;
        match report(&pool, &settings).await {
            Ok(()) => admitted = true,
            // Whoever was here first stays.
            Err(Refused::Own(_)) if admitted => {}
            Err(Refused::Own(refused)) => {
                tracing::error!(error = %Chain(&refused), "cannot go on");
                std::process::exit(1);
            }
            Err(Refused::Unknown(_)) => {}
        }
    }
}

/// Refuses a command that stores something on this host, as [`admit`] refuses a service.
///
/// # Errors
/// [`OwnStorage`], or a [`StoreError`].
pub async fn look(connection: &mut PgConnection, settings: &StorageSettings) -> Result<(), Refused> {
    let (name, alone) = (host_name(), !settings.is_shared());
    match hosts::report(connection, &settings.host, &name, alone, limits::HOST_GONE).await? {
        Some(other) if alone => Err(OwnStorage { other }.into()),
        Some(_) | None => Ok(()),
    }
}

/// Why a host may not store anything now.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The storage is its own.
    #[error(transparent)]
    Own(#[from] OwnStorage),
    /// Nobody knows.
    #[error(transparent)]
    Unknown(#[from] StoreError),
}

async fn report(pool: &PgPool, settings: &StorageSettings) -> Result<(), Refused> {
    let mut connection = pool.acquire().await.map_err(StoreError::doing("connect"))?;
    look(&mut connection, settings).await
}

/// The kernel's name of this host or container (proc(5)).
fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().chars().take(60).collect()
}
