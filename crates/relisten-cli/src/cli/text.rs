//! The longer texts of the help.

pub(super) const ABOUT: &str = "\
Run any network server as N workers behind one port, and lose no connection: not by a reload, not by scaling up or \
down.

The server needs no change. relisten starts it N times, gives each worker its own listening socket on the same \
address, and decides in the kernel which worker gets a new connection. No request passes through relisten itself.";

pub(super) const EXAMPLES: &str = "\
Examples:
  relisten run                              serve the current directory on 127.0.0.1:8080
  relisten run -w 4 -- node server.js       four workers of a server, on its own port
  relisten status                           what they are doing
  relisten reload                           replace them by new ones
  relisten scale 8                          four more
  relisten top                              every listener of the machine, who serves it, and how well
  relisten doctor                           what is wrong with them, and how to put it right
  relisten load http://127.0.0.1:8080/      is any connection lost meanwhile?
  relisten stop                             finish and end

'relisten COMMAND --help' says more about each; 'relisten man' prints the manual.";

pub(super) const RUN_ABOUT: &str = "\
Run a server as N workers behind one port.

COMMAND is any server. It may bind its address itself (relisten makes the socket a member of the group), or take its \
sockets from LISTEN_FDS. Without COMMAND, the built-in worker serves the current directory over HTTP on \
127.0.0.1:8080.

relisten stays in the foreground. Standard output and error of the workers are forwarded line by line. SIGHUP reloads, \
SIGTERM and SIGINT stop gracefully (a second one stops at once), SIGTTIN and SIGTTOU start or end one worker.

Durations are numbers with a unit: 200ms, 30s, 2m, 1h30m.";

pub(super) const RUN_EXAMPLES: &str = "\
Examples:
  relisten run
      Serve the current directory on 127.0.0.1:8080
  relisten run -w 4 -- python3 -m http.server 8000
      Four workers on port 8000
  relisten run -l 0.0.0.0:80 --user www-data -- gunicorn app:app
      Open the port as root, run the workers as www-data
  relisten run --ready http:/healthz --health http:/healthz -- ./server
      Ready when the path answers, replaced when it no longer does
  relisten run --name web --config web.toml
      Options from a file; 'relisten reload web' reads it again";

pub(super) const STATUS_EXAMPLES: &str = "\
Examples:
  relisten status
  relisten status web --json | jq .workers
  relisten status --watch";

pub(super) const RELOAD_EXAMPLES: &str = "\
Examples:
  relisten reload
  relisten reload web --wait && echo 'the old workers are gone'";

pub(super) const SCALE_EXAMPLES: &str = "\
Examples:
  relisten scale 8
  relisten scale 2 web";

pub(super) const STOP_EXAMPLES: &str = "\
Examples:
  relisten stop
  relisten stop web --timeout 20s || relisten stop web --now";

pub(super) const TOP_EXAMPLES: &str = "\
Examples:
  relisten top
  relisten top web --sort queue
  relisten top --batch --interval 10s >> top.log
  relisten top --once --json | jq '.groups[] | select(.queue > 0)'";

pub(super) const EXPORT_EXAMPLES: &str = "\
Examples:
  relisten export
  relisten export --listen 0.0.0.0:9750
  relisten export --once | grep relisten_member_hung";

pub(super) const DOCTOR_EXAMPLES: &str = "\
Examples:
  relisten doctor
  relisten doctor --explain backlog
  relisten doctor --pid 4711
      the network namespace of a container, by one of its processes
  relisten doctor --connect db.example.com:5432
      ports left for connections to there, and how many per second can be kept up
  relisten doctor --json | jq -r '.findings[] | [.severity, .rule, .subject] | @tsv'";
pub(super) const STEER_EXAMPLES: &str = "\
Examples:
  relisten steer client-ip
  relisten steer weighted web && relisten weight 0=5 1=95 --name web
  relisten steer --attach 80        nginx with `listen 80 reuseport`, as it runs
  relisten steer --detach 80";

pub(super) const WEIGHT_EXAMPLES: &str = "\
Examples:
  relisten weight 0=5 1=95         a canary in slot 0, with --steer weighted
  relisten weight 2=0              nothing new for slot 2, with any policy
  relisten weight 2=1 --name web";

pub(super) const LOAD_EXAMPLES: &str = "\
Examples:
  relisten load http://127.0.0.1:8080/
      64 clients, a new connection for each request, for 10 s
  relisten load --rate 500 --duration 1m http://127.0.0.1:8080/
      500 new connections per second, however slow the server is
  relisten load --keep-alive --clients 8 http://127.0.0.1:8080/
      8 connections, used again and again";

pub(super) const TRACE_EXAMPLES: &str = "\
Examples:
  relisten trace
      Everything, until interrupted
  relisten trace --port 443 --duration 1m
      One port, for a minute
  relisten trace --cause accept-queue-full --json | jq -r .client
      The clients whose SYNs were dropped at a full queue";

pub(super) const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  relisten completions bash > ~/.local/share/bash-completion/completions/relisten
  relisten completions zsh > ~/.zfunc/_relisten
  relisten completions fish > ~/.config/fish/completions/relisten.fish";

pub(super) const MAN_EXAMPLES: &str = "\
Examples:
  relisten man | man -l -
  relisten man run | man -l -
  relisten man --dir ~/.local/share/man/man1";

pub(super) const LAB_EXAMPLES: &str = "\
Examples:
  relisten lab list
  relisten lab run --quick --html report.html
      Every experiment, in a minute or two, as one page
  relisten lab run herd balance
      These two, with figures over several rounds
  relisten lab run herd --hold 2s
      Ten processes at one listening socket: who wakes, and who wins
  relisten lab simulate --slots 64 --load 0.8,0.95
      Policies compared by simulation, for larger machines than this";
