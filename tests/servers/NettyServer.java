import io.netty.bootstrap.ServerBootstrap;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelFutureListener;
import io.netty.channel.ChannelHandlerContext;
import io.netty.channel.ChannelInitializer;
import io.netty.channel.SimpleChannelInboundHandler;
import io.netty.channel.epoll.Epoll;
import io.netty.channel.epoll.EpollEventLoopGroup;
import io.netty.channel.epoll.EpollServerSocketChannel;
import io.netty.channel.socket.SocketChannel;
import io.netty.handler.codec.http.DefaultFullHttpResponse;
import io.netty.handler.codec.http.DefaultHttpContent;
import io.netty.handler.codec.http.DefaultHttpResponse;
import io.netty.handler.codec.http.HttpObjectAggregator;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.HttpHeaderNames;
import io.netty.handler.codec.http.HttpResponseStatus;
import io.netty.handler.codec.http.HttpServerCodec;
import io.netty.handler.codec.http.HttpUtil;
import io.netty.handler.codec.http.HttpVersion;
import io.netty.handler.codec.http.LastHttpContent;
import io.netty.handler.codec.http.QueryStringDecoder;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.TimeUnit;

/**
 * netty on its native transport, which puts the listening socket into an edge-triggered epoll set before bind: a
 * supervisor that replaced the descriptor would make it deaf. usage: java NettyServer HOST PORT
 */
public final class NettyServer {
    public static void main(String[] arguments) throws InterruptedException {
        // Never fall back to NIO in silence: the test is about the native transport.
        Epoll.ensureAvailability();
        var group = new EpollEventLoopGroup(2);
        new ServerBootstrap().group(group).channel(EpollServerSocketChannel.class)
            .childHandler(new ChannelInitializer<SocketChannel>() {
                @Override
                protected void initChannel(SocketChannel channel) {
                    channel.pipeline().addLast(new HttpServerCodec(), new HttpObjectAggregator(65536), new Handler());
                }
            })
            .bind(arguments[0], Integer.parseInt(arguments[1])).sync().channel().closeFuture().sync();
    }

    private static final class Handler extends SimpleChannelInboundHandler<FullHttpRequest> {
        @Override
        protected void channelRead0(ChannelHandlerContext context, FullHttpRequest request) {
            var query = new QueryStringDecoder(request.uri());
            boolean keep = HttpUtil.isKeepAlive(request);
            switch (query.path()) {
                case "/slow" -> {
                    long ms = Long.parseLong(query.parameters().get("ms").get(0));
                    context.executor().schedule(() -> answer(context, keep), ms, TimeUnit.MILLISECONDS);
                }
                case "/download" -> {
                    int tenths = 10 * Integer.parseInt(query.parameters().get("s").get(0));
                    var response = new DefaultHttpResponse(HttpVersion.HTTP_1_1, HttpResponseStatus.OK);
                    response.headers().set(HttpHeaderNames.CONTENT_LENGTH, tenths * 1000);
                    context.writeAndFlush(response);
                    part(context, tenths);
                }
                default -> answer(context, keep);
            }
        }

        private static void answer(ChannelHandlerContext context, boolean keep) {
            byte[] body = ("pid=" + ProcessHandle.current().pid() + "\n").getBytes(StandardCharsets.US_ASCII);
            var response = new DefaultFullHttpResponse(
                HttpVersion.HTTP_1_1, HttpResponseStatus.OK, Unpooled.wrappedBuffer(body));
            response.headers().set(HttpHeaderNames.CONTENT_LENGTH, body.length);
            HttpUtil.setKeepAlive(response, keep);
            var written = context.writeAndFlush(response);
            if (!keep) {
                written.addListener(ChannelFutureListener.CLOSE);
            }
        }

        private static void part(ChannelHandlerContext context, int left) {
            if (left == 0) {
                context.writeAndFlush(LastHttpContent.EMPTY_LAST_CONTENT).addListener(ChannelFutureListener.CLOSE);
                return;
            }
            byte[] bytes = "x".repeat(1000).getBytes(StandardCharsets.US_ASCII);
            context.writeAndFlush(new DefaultHttpContent(Unpooled.wrappedBuffer(bytes)));
            context.executor().schedule(() -> part(context, left - 1), 100, TimeUnit.MILLISECONDS);
        }

        @Override
        public void exceptionCaught(ChannelHandlerContext context, Throwable cause) {
            context.close();
        }
    }
}
