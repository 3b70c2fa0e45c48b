//! Keys of what is stored.

use object_store::path::Path as ObjectPath;
use uuid::Uuid;

/// Key of a snapshot file: unique to one attempt or one upload, so that nothing else can ever write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotKey {
    /// The job that wrote it, or the id of an upload.
    pub job: Uuid,
    /// Number of the attempt.
    pub attempt: i32,
    /// Token of the attempt.
    pub token: Uuid,
}

impl SnapshotKey {
    /// A key for an upload.
    pub fn for_upload() -> Self {
        Self { job: Uuid::new_v4(), attempt: 1, token: Uuid::new_v4() }
    }

    /// The key as it is stored: `snapshots/{job}/{attempt}-{token}.zip`.
    pub fn text(&self) -> String {
        format!("snapshots/{}/{}", self.job, self.file())
    }

    /// Name of the file in the directory of its job.
    pub(super) fn file(&self) -> String {
        format!("{}-{}.zip", self.attempt, self.token.simple())
    }

    /// Reads a key, or the name of its part file; nothing when the text is neither.
    pub fn parse(job_directory: &str, file: &str) -> Option<Self> {
        let file = file.strip_prefix('.').and_then(|f| f.strip_suffix(".part")).unwrap_or(file);
        let (attempt, token) = file.strip_suffix(".zip")?.split_once('-')?;
        Some(Self {
            job: Uuid::try_parse(job_directory).ok()?,
            attempt: attempt.parse().ok()?,
            token: Uuid::try_parse(token).ok()?,
        })
    }
}

/// Key of file contents: `blobs/{first two digits}/{id}`.
pub fn blob_key(id: Uuid) -> ObjectPath {
    let id = id.simple().to_string();
    ObjectPath::from(format!("blobs/{}/{id}", &id[..2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_can_be_read_back_and_nothing_else_can() {
        let key = SnapshotKey { job: Uuid::from_u128(1), attempt: 3, token: Uuid::from_u128(2) };
        let text = key.text();
        let (directory, file) = text.strip_prefix("snapshots/").and_then(|t| t.split_once('/')).expect("two names");
        assert_eq!(SnapshotKey::parse(directory, file), Some(key.clone()));
        assert_eq!(SnapshotKey::parse(directory, &format!(".{file}.part")), Some(key));
        for bad in ["", "a.zip", "1.zip", "1-x.zip", "x"] {
            assert_eq!(SnapshotKey::parse(directory, bad), None, "{bad}");
        }
        assert_eq!(SnapshotKey::parse("lost+found", file), None);
    }
}
