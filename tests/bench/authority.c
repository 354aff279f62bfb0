/* The DNS server that everybody asks in the benchmark: as fast as one core allows, and always the same work.
 *
 * n123.any.thing A is 11.0.0.0 plus 123, so that each name has an address of its own; any other type is an
 * empty answer. An OPT record is answered by one (RFC 6891), so that nobody falls back to plain DNS.
 * Usage: authority ADDRESS PORT. UDP only: no answer is ever truncated.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BATCH 64
#define SIZE 1024
#define FIRST 0x0b000000u /* 11.0.0.0: global unicast, so that it may enter a set; nothing leaves the namespace */
#define TTL 3600

static uint8_t packets[BATCH][SIZE];
static struct sockaddr_in clients[BATCH];
static struct iovec vectors[BATCH];
static struct mmsghdr messages[BATCH];

/* The length of the answer, which is written over the question; 0 where there is no question to answer. */
static size_t answer(uint8_t *packet, size_t length)
{
    if (length < 17 || (packet[2] & 0x80))
        return 0;
    uint8_t *place = packet + 12, *end = packet + length;
    uint32_t number = 0;
    for (int i = 1; i <= place[0] && place + i < end; i++)
        if (place[i] >= '0' && place[i] <= '9')
            number = number * 10 + (place[i] - '0');
    while (place < end && *place)
        place += *place + 1;
    if (place + 5 > end)
        return 0;
    int is_a = place[1] == 0 && place[2] == 1, has_opt = packet[11] > 0;
    place += 5;
    packet[2] = 0x84 | (packet[2] & 0x01); /* a response with AA, and RD as it came */
    packet[3] = 0x80;                      /* RA, NOERROR */
    memset(packet + 6, 0, 6);
    if (is_a) {
        const uint32_t ttl = htonl(TTL), address = htonl(FIRST + number);
        packet[7] = 1;
        memcpy(place, "\xc0\x0c\0\1\0\1", 6);
        memcpy(place + 6, &ttl, 4);
        memcpy(place + 10, "\0\4", 2);
        memcpy(place + 12, &address, 4);
        place += 16;
    }
    if (has_opt) {
        packet[11] = 1;
        memcpy(place, "\0\0\x29\x04\xd0\0\0\0\0\0\0", 11);
        place += 11;
    }
    return place - packet;
}

int main(int count, char **words)
{
    if (count != 3)
        return 2;
    int sock = socket(AF_INET, SOCK_DGRAM, 0), buffer = 8 << 20;
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons(atoi(words[2]))};
    setsockopt(sock, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
    setsockopt(sock, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer);
    if (sock < 0 || inet_pton(AF_INET, words[1], &here.sin_addr) != 1 ||
        bind(sock, (struct sockaddr *)&here, sizeof here) < 0) {
        perror("authority");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            vectors[i] = (struct iovec){packets[i], SIZE - 64};
            messages[i].msg_hdr = (struct msghdr){
                .msg_name = &clients[i], .msg_namelen = sizeof clients[i], .msg_iov = &vectors[i], .msg_iovlen = 1};
        }
        int received = recvmmsg(sock, messages, BATCH, MSG_WAITFORONE, NULL), answers = 0;
        for (int i = 0; i < received; i++) {
            size_t length = answer(packets[i], messages[i].msg_len);
            if (!length)
                continue;
            vectors[i].iov_len = length;
            messages[answers++].msg_hdr = messages[i].msg_hdr;
        }
        for (int sent = 0, more; sent < answers; sent += more)
            if ((more = sendmmsg(sock, messages + sent, answers - sent, 0)) <= 0)
                break;
    }
}
