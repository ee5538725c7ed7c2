//! Real servers, with their own means and under relisten.

mod command;
mod running;

pub(super) use running::Running;

/// What is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// A plain script: dies at once on SIGTERM, with everything that it has accepted.
    Python,
    Gunicorn,
    Granian,
    Nginx,
    HaProxy,
    /// A plain script; alone under Node's cluster module.
    Node,
    /// The same script under PM2, in its cluster mode.
    Pm2,
    /// relisten's own.
    BuiltIn,
}

/// How its workers share the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// As the server does by itself: one listener for all.
    Alone,
    /// With a listener each: the server's own option for it.
    Reuseport,
    /// relisten runs several of it.
    Relisten,
}

impl Way {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Alone => "alone",
            Self::Reuseport => "reuseport",
            Self::Relisten => "under relisten",
        }
    }
}

impl Server {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Python => "Python http.server",
            Self::Gunicorn => "gunicorn",
            Self::Granian => "granian",
            Self::Nginx => "nginx",
            Self::HaProxy => "HAProxy",
            Self::Node => "Node",
            Self::Pm2 => "PM2",
            Self::BuiltIn => "built-in worker",
        }
    }
}

/// As in "nginx, under relisten".
pub(super) fn who(server: Server, way: Way) -> String {
    match (server, way) {
        (Server::Node, Way::Alone) => "Node cluster".to_owned(),
        (Server::Pm2, _) => server.name().to_owned(),
        _ => format!("{}, {}", server.name(), way.name()),
    }
}
