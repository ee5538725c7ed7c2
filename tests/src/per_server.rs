/// One test per server, in a module named like the function that takes the [`Kind`](crate::Kind):
/// `per_server!(reload)` gives `reload::python`, `reload::node` and so on, each calling `reload(Kind::…)`.
/// A list in brackets chooses: `per_server!(crash, [python = Python, node = Node])`.
#[macro_export]
macro_rules! per_server {
    ($function:ident) => {
        $crate::per_server!(
            $function,
            [
                python = Python,
                python_keep_alive = PythonKeepAlive,
                node = Node,
                java = Java,
                netty = Netty,
                go = Go,
                gunicorn = Gunicorn,
                nginx = Nginx,
                nginx_reuseport = NginxReuseport,
                built_in = BuiltIn,
                library = Library,
            ]
        );
    };
    ($function:ident, [$($name:ident = $kind:ident),* $(,)?]) => {
        mod $function {
            $(
                #[test]
                fn $name() {
                    super::$function($crate::Kind::$kind);
                }
            )*
        }
    };
}
