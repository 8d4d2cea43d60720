# Keymount's images by Docker, for those who prefer it; `make images` makes the released ones, without Docker and the same
# bit for bit. One image per program:
#
#   docker build --build-arg PROGRAM=keymount-driver --build-arg VERSION=0.1.0 -t keymount-driver:0.1.0 .
#
# A test of images/ holds the flags to those of the Makefile. The certification authorities are Debian's, of the first stage.

FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
ARG TARGETOS
ARG TARGETARCH
ARG PROGRAM=keymount-driver
ARG VERSION=development
ARG REVISION=
ARG CREATED=
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY api api
COPY cmd cmd
COPY internal internal
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X main.version=$VERSION -X main.gitCommit=$REVISION -X main.buildDate=$CREATED" \
    -o /image/program ./cmd/$PROGRAM
RUN mkdir -p /image/etc/ssl/certs && mkdir -m 1777 /image/tmp \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && printf 'root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n' > /image/etc/passwd \
    && printf 'root:x:0:\nnonroot:x:65532:\n' > /image/etc/group

FROM scratch
ARG PROGRAM=keymount-driver
ARG VERSION=development
ARG REVISION=
ARG CREATED=
# The driver mounts, and a provider's socket lies in a folder of root's. The emulator needs no root: --build-arg RUN_AS=65532:65532
ARG RUN_AS=0:0
LABEL org.opencontainers.image.title=$PROGRAM \
      org.opencontainers.image.source=https://github.com/keymount/keymount \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.created=$CREATED \
      org.opencontainers.image.licenses=Apache-2.0
COPY --from=build /image /
USER $RUN_AS
ENTRYPOINT ["/program"]
