// Runs the script that follows on the command line as WORKERS workers of Node's cluster module, as its documentation
// shows it: who dies is replaced. HUP: new workers, then the old ones disconnect. TTIN, TTOU: one more, one fewer.
const cluster = require("cluster");
const [script, ...rest] = process.argv.slice(2);
cluster.setupPrimary({ exec: script, args: rest });
cluster.on("exit", (worker) => worker.exitedAfterDisconnect || cluster.fork());
const workers = () => Object.values(cluster.workers).filter((worker) => !worker.exitedAfterDisconnect);
process.on("SIGHUP", () => workers().forEach((old) => cluster.fork().once("listening", () => old.disconnect())));
process.on("SIGTTIN", () => cluster.fork());
process.on("SIGTTOU", () => workers()[0].disconnect());
for (let count = Number(process.env.WORKERS ?? 1); count > 0; count -= 1) cluster.fork();
