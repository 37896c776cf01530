/* What a compile cannot be faster than: every system call that it needs, and a cdb.

       limit DIRECTORIES KEYS OUTPUT

   DIRECTORIES names one directory a line: it is listed, and vpasswd.cdb and every file that
   begins with .qmail in it are opened, looked at, read and closed.  KEYS holds one key a
   line: they become the cdb OUTPUT (value "1"), written at once, synced, and renamed. */

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *whole(int directory, const char *name, size_t *size)
{
    struct stat st;
    int fd = openat(directory, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) || !S_ISREG(st.st_mode)) {
        if (fd >= 0) close(fd);
        return 0;
    }
    char *data = malloc((size_t)st.st_size + 1);
    size_t done = 0;
    for (ssize_t got; done < (size_t)st.st_size && (got = read(fd, data + done, (size_t)st.st_size - done)) > 0;)
        done += (size_t)got;
    close(fd);
    data[done] = 0;
    *size = done;
    return data;
}

static void look(const char *path)
{
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *listing = directory < 0 ? 0 : fdopendir(directory);
    struct dirent *entry;
    size_t size;
    while (listing && (entry = readdir(listing)))
        if (!strncmp(entry->d_name, ".qmail", 6) || !strcmp(entry->d_name, "vpasswd.cdb"))
            free(whole(directory, entry->d_name, &size));
    if (listing) closedir(listing);
}

struct slot { uint32_t hash, position; };

static void number(unsigned char *at, uint32_t value)
{
    at[0] = value; at[1] = value >> 8; at[2] = value >> 16; at[3] = value >> 24;
}

static int make(char *keys, size_t size, const char *output)
{
    size_t count = 0, position = 2048, slots_of[256] = {0};
    for (size_t i = 0; i < size; ++i) count += keys[i] == '\n';
    struct slot *all = malloc((count + 1) * sizeof *all);
    unsigned char *file = malloc(2048 + size + count * (9 + 16) + 16);
    size_t n = 0;
    for (char *key = keys, *end; key < keys + size && (end = memchr(key, '\n', keys + size - key)); key = end + 1) {
        uint32_t length = end - key, hash = 5381;
        for (uint32_t i = 0; i < length; ++i) hash = (hash * 33) ^ (unsigned char)key[i];
        number(file + position, length);
        number(file + position + 4, 1);
        memcpy(file + position + 8, key, length);
        file[position + 8 + length] = '1';
        all[n].hash = hash;
        all[n++].position = position;
        ++slots_of[hash & 255];
        position += 9 + length;
    }
    struct slot **table = malloc(256 * sizeof *table);
    for (int t = 0; t < 256; ++t) table[t] = calloc(2 * slots_of[t] + 1, sizeof **table);
    for (size_t i = 0; i < n; ++i) {
        uint32_t t = all[i].hash & 255, room = 2 * slots_of[t], at = (all[i].hash >> 8) % room;
        while (table[t][at].position) at = at + 1 == room ? 0 : at + 1;
        table[t][at] = all[i];
    }
    for (int t = 0; t < 256; ++t) {
        number(file + 8 * t, position);
        number(file + 8 * t + 4, 2 * slots_of[t]);
        for (size_t i = 0; i < 2 * slots_of[t]; ++i, position += 8) {
            number(file + position, table[t][i].hash);
            number(file + position + 4, table[t][i].position);
        }
    }
    char temporary[4096];
    snprintf(temporary, sizeof temporary, "%s.tmp", output);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    for (size_t done = 0; done < position;) {
        ssize_t put = write(fd, file + done, position - done);
        if (put < 0) return 1;
        done += (size_t)put;
    }
    return fsync(fd) || close(fd) || rename(temporary, output);
}

int main(int argc, char **argv)
{
    size_t size;
    if (argc != 4) return 2;
    char *directories = whole(AT_FDCWD, argv[1], &size);
    if (!directories) return 2;
    for (char *path = strtok(directories, "\n"); path; path = strtok(0, "\n")) look(path);
    char *keys = whole(AT_FDCWD, argv[2], &size);
    return keys ? make(keys, size, argv[3]) : 2;
}
