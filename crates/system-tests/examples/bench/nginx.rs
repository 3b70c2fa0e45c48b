//! A private nginx that serves one directory: unprivileged, in the foreground, with nothing from the machine's own
//! configuration.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use system_tests::system::{eventually, free_address};
use tempfile::TempDir;

use crate::shell;

/// The server. It ends, and its copy of the file goes, with it.
#[derive(Debug)]
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    process: Child,
    _directory: TempDir,
}

/// The user that owns nothing.
const NOBODY: u32 = 65_534;

impl Nginx {
    /// Serves a copy of a file as `/file`.
    pub(crate) fn serve(file: &Path) -> Self {
        // Not below the checkout, where another user may not look.
        let directory =
            tempfile::Builder::new().prefix("cell-export-nginx.").tempdir_in("/var/tmp").expect("a directory");
        let all = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).expect("own files");
        };
        all(directory.path(), 0o777);
        let copy = directory.path().join("file");
        std::fs::copy(file, &copy).expect("space for a copy");
        all(&copy, 0o644);
        let address = free_address();
        let configuration = directory.path().join("nginx.conf");
        std::fs::write(&configuration, text(address, directory.path())).expect("a configuration");
        let mut command = Command::new("nginx");
        command
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .arg("-p")
            .arg(directory.path())
            .arg("-c")
            .arg(&configuration);
        command.arg("-e").arg(directory.path().join("error.log")).current_dir("/").stdin(Stdio::null());
        if shell::output("id", &["-u"]) == "0" {
            command.uid(NOBODY).gid(NOBODY);
        }
        let process = command.spawn().expect("nginx is installed");
        let server = Self { address, process, _directory: directory };
        eventually("nginx answers", || std::net::TcpStream::connect(address).is_ok());
        server
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with it when it is asked, not when it is killed.
        shell::output("kill", &[&self.process.id().to_string()]);
        let _ = self.process.wait();
    }
}

fn text(address: SocketAddr, directory: &Path) -> String {
    let directory = directory.display();
    let threads = model::limits::HTTP_THREADS;
    format!(
        "daemon off;
worker_processes {threads};
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  server {{ listen {address}; root {directory}; }}
}}
"
    )
}
