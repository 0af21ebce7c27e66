/* A libnvidia-ml.so.1 for tests: plays the scenario in the file named by SHISUAN_NVML_SCENARIO to the real bindings.
 *
 * Our own declarations of the functions that workers/nvml.py calls, no more; NVIDIA's header is not copied. A test
 * compares the sizes of the structs with the bindings' own.
 *
 * The file is read anew at every call, so a test changes the world by writing it. One line per thing, key=value words,
 * `_` stands for a blank:
 *
 *   driver 580.65.06
 *   clock_ms 5000                       virtual time since the driver was loaded
 *   down 9                              nvmlInit and nvmlDeviceGetCount fail with this error
 *   card uuid=GPU-1 name=NVIDIA_L4 memory_mib=23034 used_mib=0 power_mw=30000 ... fault=lost without=energy,encoder
 *   mig card=0 uuid=MIG-1 profile=1g.10gb memory_mib=9984 start=6
 *   process card=0 pid=42 memory_mib=500
 *
 * A MIG instance without start= hides where it lies, as from a user who may not ask. Whoever destroys and creates
 * instances appends to the file: `gone card=0 part=1`, `made ...`, `ready card=0 part=2` (it has its compute instance).
 *
 * Energy is power times virtual time, so that the two agree by construction. Faults: lost, garbage (impossible values),
 * slow (every reading takes slow_ms of real time). Built with -DOLD_DRIVER it lacks the symbols of newer drivers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6, TOO_SMALL = 7, GPU_IS_LOST = 15,
       IN_USE = 19, INSUFFICIENT = 23, VERSION_MISMATCH = 25 };
enum { MOST_CARDS = 16, MOST_PARTS = 32, MOST_PROCESSES = 64, TEXT = 96 };
#define MIB (1ULL << 20)
#define SENTINEL 9223372036854775794ULL

typedef unsigned int u32;
typedef unsigned long long u64;

typedef struct { u64 total, free, used; } Memory;
typedef struct { u32 version; u64 total, reserved, free, used; } Memory2;
typedef struct { u32 gpu, memory; } Utilization;
typedef struct { u32 pid; u64 used; u32 gpuInstance, computeInstance; } Process;
typedef struct { char legacy[16]; u32 domain, bus, device, id, subsystem; char busId[32]; } Pci;
typedef struct { u32 sm, copy, decoder, encoder, jpeg, ofa, slices, computeSlices; u64 memoryMB; } Attributes;

typedef struct { u32 start, size; } Placement;
typedef struct { unsigned long device; u32 id, profileId; Placement placement; } InstanceInfo;
typedef struct {
    u32 version, id, p2p, slices, most, sm, copy, decoder, encoder, jpeg, ofa;
    u64 memoryMB;
    char name[96];
} InstanceProfile;
typedef struct { u32 version, id, slices, most, sm, copy, decoder, encoder, jpeg, ofa; char name[96]; } ComputeProfile;

typedef struct {
    char uuid[TEXT], name[TEXT], bus[32], remote[32], fault[TEXT], without[TEXT], profile[TEXT];
    int start, gone, ready;
    int index, part, mig, links, gpu, memory, encoder, decoder, temperature, rows_pending, rows_failed, slow_ms;
    u64 memory_mib, used_mib, reserved_mib, power_mw;
} Device;

typedef struct { int card, part, graphics; u32 pid; u64 memory_mib; } Running;

typedef struct {
    char driver[TEXT];
    u64 clock_ms;
    int down, cards, parts[MOST_CARDS], processes;
    Device card[MOST_CARDS], part[MOST_CARDS][MOST_PARTS];
    Running running[MOST_PROCESSES];
} World;

/* A handle is the place of a device: card << 8 | part + 1, so it survives the file being read again. */
typedef unsigned long Handle;

static const char *word(const char *line, const char *key) {
    static __thread char value[TEXT];
    size_t n = strlen(key);
    for (const char *at = line; (at = strstr(at, key)) != NULL; at += n) {
        if ((at == line || at[-1] == ' ') && at[n] == '=') {
            size_t length = strcspn(at + n + 1, " \n");
            length = length < TEXT - 1 ? length : TEXT - 1;
            memcpy(value, at + n + 1, length);
            value[length] = 0;
            return value;
        }
    }
    return "";
}

static void text(char *to, size_t room, const char *line, const char *key) {
    snprintf(to, room, "%s", word(line, key));
    for (char *c = to; *c; c++) *c = *c == '_' ? ' ' : *c;
}

static u64 number(const char *line, const char *key) { return strtoull(word(line, key), NULL, 10); }

static void read_device(Device *d, const char *line) {
    text(d->uuid, TEXT, line, "uuid"); text(d->name, TEXT, line, "name"); text(d->profile, TEXT, line, "profile");
    text(d->bus, sizeof d->bus, line, "bus"); text(d->remote, sizeof d->remote, line, "remote");
    text(d->fault, TEXT, line, "fault"); text(d->without, TEXT, line, "without");
    d->mig = number(line, "mig"); d->links = number(line, "links"); d->gpu = number(line, "gpu");
    d->memory = number(line, "memory"); d->encoder = number(line, "encoder"); d->decoder = number(line, "decoder");
    d->temperature = number(line, "temperature"); d->slow_ms = number(line, "slow_ms");
    d->rows_pending = number(line, "rows_pending"); d->rows_failed = number(line, "rows_failed");
    d->memory_mib = number(line, "memory_mib"); d->used_mib = number(line, "used_mib");
    d->reserved_mib = number(line, "reserved_mib"); d->power_mw = number(line, "power_mw");
}

static void read_line(World *w, const char *line) {
    if (!strncmp(line, "driver ", 7)) sscanf(line + 7, "%95s", w->driver);
    else if (!strncmp(line, "clock_ms ", 9)) w->clock_ms = strtoull(line + 9, NULL, 10);
    else if (!strncmp(line, "down ", 5)) w->down = atoi(line + 5);
    else if (!strncmp(line, "card ", 5) && w->cards < MOST_CARDS) {
        Device *d = &w->card[w->cards];
        read_device(d, line);
        d->index = w->cards++; d->part = -1;
    } else if (!strncmp(line, "mig ", 4) || !strncmp(line, "made ", 5)) {
        int card = number(line, "card");
        if (card < w->cards && w->parts[card] < MOST_PARTS) {
            Device *d = &w->part[card][w->parts[card]];
            read_device(d, line);
            d->index = card; d->part = w->parts[card]++;
            d->start = *word(line, "start") ? (int)number(line, "start") : -1;
            d->ready = !strncmp(line, "mig ", 4);
        }
    } else if (!strncmp(line, "gone ", 5)) {
        w->part[number(line, "card")][number(line, "part")].gone = 1;
    } else if (!strncmp(line, "ready ", 6)) {
        w->part[number(line, "card")][number(line, "part")].ready = 1;
    } else if (!strncmp(line, "bare ", 5)) {
        w->part[number(line, "card")][number(line, "part")].ready = 0;
    } else if (!strncmp(line, "process ", 8) && w->processes < MOST_PROCESSES) {
        Running *r = &w->running[w->processes++];
        r->card = number(line, "card"); r->part = *word(line, "mig") ? (int)number(line, "mig") : -1;
        r->pid = number(line, "pid"); r->memory_mib = number(line, "memory_mib");
        r->graphics = !strcmp(word(line, "kind"), "graphics");
    }
}

static int load(World *w) {
    const char *path = getenv("SHISUAN_NVML_SCENARIO");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[1024];
    memset(w, 0, sizeof *w);
    if (file == NULL) return 9; /* driver not loaded */
    while (fgets(line, sizeof line, file)) read_line(w, line);
    fclose(file);
    return SUCCESS;
}

/* Finds the device behind a handle; `reading` is what it may be unable to say. */
static int find(Handle handle, const char *reading, World *w, Device **found) {
    int failed = load(w), card = (int)(handle >> 8), part = (int)(handle & 255) - 1;
    if (failed) return failed;
    if (card >= w->cards || part >= w->parts[card]) return INVALID_ARGUMENT;
    *found = part < 0 ? &w->card[card] : &w->part[card][part];
    if (!strcmp(w->card[card].fault, "lost")) return GPU_IS_LOST;
    if (!strcmp((*found)->fault, "slow")) usleep((useconds_t)(*found)->slow_ms * 1000);
    if (reading != NULL && strstr((*found)->without, reading)) return NOT_SUPPORTED;
    return SUCCESS;
}

static int garbage(const Device *d) { return !strcmp(d->fault, "garbage"); }

#define DEVICE(reading) \
    World w; Device *d; int failed = find(handle, reading, &w, &d); \
    if (failed) return failed;
/* NVIDIA: a MIG instance has no utilisation, power, energy, temperature or engine readings. */
#define CARD_ONLY(reading) DEVICE(reading) if (d->part >= 0) return NOT_SUPPORTED;

int nvmlInitWithFlags(u32 flags) { World w; int failed = load(&w); (void)flags; return failed ? failed : w.down; }
int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return code == GPU_IS_LOST ? "GPU is lost" : "Stub error"; }

int nvmlSystemGetDriverVersion(char *to, u32 room) {
    World w; int failed = load(&w);
    if (!failed) snprintf(to, room, "%s", w.driver);
    return failed;
}

int nvmlDeviceGetCount_v2(u32 *count) {
    World w; int failed = load(&w);
    *count = w.cards;
    return failed ? failed : w.down;
}

int nvmlDeviceGetHandleByIndex_v2(u32 index, Handle *to) {
    World w; int failed = load(&w);
    if (failed) return failed;
    if ((int)index >= w.cards) return INVALID_ARGUMENT;
    if (!strcmp(w.card[index].fault, "lost")) return GPU_IS_LOST;
    *to = (Handle)index << 8 | 1UL << 32; /* never NULL */
    return SUCCESS;
}
#define PLACE(handle) ((handle) & ~(1UL << 32))

int nvmlDeviceGetUUID(Handle handle, char *to, u32 room) {
    handle = PLACE(handle); DEVICE(NULL) snprintf(to, room, "%s", d->uuid); return SUCCESS;
}

int nvmlDeviceGetName(Handle handle, char *to, u32 room) {
    handle = PLACE(handle); DEVICE("name")
    if (d->part < 0) snprintf(to, room, "%s", d->name);
    else snprintf(to, room, "%s MIG %s", w.card[d->index].name, d->profile);
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(Handle handle, Memory *to) {
    handle = PLACE(handle); DEVICE("memory")
    to->total = d->memory_mib * MIB; to->used = (d->used_mib + d->reserved_mib) * MIB; to->free = to->total - to->used;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(Handle handle, Utilization *to) {
    handle = PLACE(handle); CARD_ONLY("utilisation")
    to->gpu = garbage(d) ? 250 : d->gpu; to->memory = d->memory;
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(Handle handle, u32 *to) {
    handle = PLACE(handle); CARD_ONLY("power") *to = garbage(d) ? 4294967295u : d->power_mw; return SUCCESS;
}

int nvmlDeviceGetTemperature(Handle handle, u32 sensor, u32 *to) {
    handle = PLACE(handle); CARD_ONLY("temperature") (void)sensor; *to = d->temperature; return SUCCESS;
}

int nvmlDeviceGetEncoderUtilization(Handle handle, u32 *to, u32 *period) {
    handle = PLACE(handle); CARD_ONLY("encoder") *to = d->encoder; *period = 167000; return SUCCESS;
}

int nvmlDeviceGetDecoderUtilization(Handle handle, u32 *to, u32 *period) {
    handle = PLACE(handle); CARD_ONLY("decoder") *to = d->decoder; *period = 167000; return SUCCESS;
}

static int list(Handle handle, int graphics, u32 *count, Process *to) {
    handle = PLACE(handle); DEVICE("processes")
    u32 found = 0, room = *count;
    for (int i = 0; i < w.processes; i++) {
        Running *r = &w.running[i];
        if (r->card != d->index || r->part != d->part || r->graphics != graphics) continue;
        if (to != NULL && found < room) to[found] = (Process){r->pid, r->memory_mib * MIB, ~0u, ~0u};
        found++;
    }
    *count = found;
    return found > room ? TOO_SMALL : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(Handle h, u32 *count, Process *to) { return list(h, 0, count, to); }
int nvmlDeviceGetGraphicsRunningProcesses_v3(Handle h, u32 *count, Process *to) { return list(h, 1, count, to); }

int nvmlDeviceGetPciInfo_v3(Handle handle, Pci *to) {
    handle = PLACE(handle); DEVICE("bus")
    memset(to, 0, sizeof *to); snprintf(to->busId, sizeof to->busId, "%s", d->bus);
    return SUCCESS;
}

int nvmlDeviceGetMigMode(Handle handle, u32 *now, u32 *pending) {
    handle = PLACE(handle); CARD_ONLY("mig") *now = *pending = d->mig; return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(Handle handle, u32 *to) {
    handle = PLACE(handle); DEVICE("mig") *to = d->mig ? MOST_PARTS - 1 : 0; return SUCCESS;
}

int nvmlDeviceGetMigDeviceHandleByIndex(Handle handle, u32 index, Handle *to) {
    Handle card = handle;
    handle = PLACE(handle); DEVICE("mig")
    if ((int)index >= w.parts[d->index]) return NOT_FOUND;
    if (w.part[d->index][index].gone || !w.part[d->index][index].ready) return NOT_FOUND;
    *to = card + index + 1;
    return SUCCESS;
}

/* What an H100 of 80 GB can be cut into. */
typedef struct { int number; u32 id; const char *name; u32 slices, size, most; u64 memoryMB; } Profile;
static const Profile PROFILES[] = {
    {0, 19, "1g.10gb", 1, 1, 7, 9856}, {7, 20, "1g.10gb+me", 1, 1, 1, 9856}, {9, 15, "1g.20gb", 1, 2, 4, 20096},
    {1, 14, "2g.20gb", 2, 2, 3, 20096}, {2, 9, "3g.40gb", 3, 4, 2, 40448}, {3, 5, "4g.40gb", 4, 4, 1, 40448},
    {4, 0, "7g.80gb", 7, 8, 1, 80896},
};
enum { PROFILE_COUNT = sizeof PROFILES / sizeof *PROFILES };
static const u32 COMPUTE_SLICES[] = {1, 2, 3, 4, 7};
enum { GPU_INSTANCE = 33, COMPUTE_INSTANCE = 34 }; /* bits that tell the kinds of handle apart */

static const Profile *profile_of(const char *name, u32 id) {
    for (int i = 0; i < PROFILE_COUNT; i++)
        if (name != NULL ? !strcmp(PROFILES[i].name, name) : PROFILES[i].id == id) return &PROFILES[i];
    return NULL;
}

static int note(const char *line) {
    FILE *file = fopen(getenv("SHISUAN_NVML_SCENARIO"), "a");
    if (file == NULL) return NO_PERMISSION;
    fputs(line, file);
    fclose(file);
    return SUCCESS;
}

#define INSTANCE(bit) \
    World w; Device *d; int failed = find(handle & ~(1UL << (bit)), NULL, &w, &d); \
    if (failed) return failed; \
    if (d->gone || d->part < 0) return NOT_FOUND;

int nvmlDeviceGetGpuInstanceId(Handle handle, u32 *to) {
    handle = PLACE(handle); DEVICE("instance")
    if (d->part < 0) return NOT_SUPPORTED;
    *to = d->part + 1;
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceById(Handle handle, u32 id, Handle *to) {
    handle = PLACE(handle); DEVICE("instance")
    if (id == 0 || (int)id > w.parts[d->index] || w.part[d->index][id - 1].gone) return NOT_FOUND;
    if (w.part[d->index][id - 1].start < 0) return NO_PERMISSION;
    *to = (Handle)d->index << 8 | id | 1UL << GPU_INSTANCE;
    return SUCCESS;
}

int nvmlGpuInstanceGetInfo(Handle handle, InstanceInfo *to) {
    INSTANCE(GPU_INSTANCE)
    const Profile *p = profile_of(d->profile, 0);
    if (p == NULL) return NOT_FOUND;
    to->device = (Handle)d->index << 8 | 1UL << 32; to->id = d->part + 1; to->profileId = p->id;
    to->placement = (Placement){d->start, p->size};
    return SUCCESS;
}

int nvmlDeviceGetGpuInstancePossiblePlacements_v2(Handle handle, u32 id, Placement *to, u32 *count) {
    handle = PLACE(handle); CARD_ONLY("instance")
    const Profile *p = profile_of(NULL, id);
    if (p == NULL) return INVALID_ARGUMENT;
    u32 room = *count;
    *count = p->most > 7 / p->size && p->size > 1 ? 8 / p->size : p->most;
    if (to == NULL) return SUCCESS;
    if (room < *count) return TOO_SMALL;
    for (u32 i = 0; i < *count; i++) to[i] = (Placement){i * p->size, p->size};
    return SUCCESS;
}

int nvmlDeviceGetGpuInstances(Handle handle, u32 id, Handle *to, u32 *count) {
    handle = PLACE(handle); CARD_ONLY("instance")
    const Profile *p = profile_of(NULL, id);
    if (p == NULL) return INVALID_ARGUMENT;
    *count = 0;
    for (int i = 0; i < w.parts[d->index]; i++) {
        const Device *part = &w.part[d->index][i];
        if (part->gone || strcmp(part->profile, p->name)) continue;
        if (part->start < 0) return NO_PERMISSION;
        to[(*count)++] = (Handle)d->index << 8 | (u32)(i + 1) | 1UL << GPU_INSTANCE;
    }
    return SUCCESS;
}

int nvmlDeviceCreateGpuInstanceWithPlacement(Handle handle, u32 id, const Placement *at, Handle *to) {
    handle = PLACE(handle); CARD_ONLY("instance")
    const Profile *p = profile_of(NULL, id);
    char line[256];
    u32 slices = 0;
    if (p == NULL || at->size != p->size || at->start % p->size) return INVALID_ARGUMENT;
    for (int i = 0; i < w.parts[d->index]; i++) {
        const Device *part = &w.part[d->index][i];
        const Profile *other = profile_of(part->profile, 0);
        if (part->gone || other == NULL) continue;
        slices += other->slices;
        if (at->start < (u32)part->start + other->size && (u32)part->start < at->start + at->size) return INSUFFICIENT;
    }
    if (slices + p->slices > 7 || at->start + at->size > 8 || w.parts[d->index] >= MOST_PARTS) return INSUFFICIENT;
    snprintf(line, sizeof line, "made card=%d uuid=MIG-%s-%d profile=%s memory_mib=%llu start=%u\n", d->index, d->uuid,
             w.parts[d->index], p->name, p->memoryMB, at->start);
    *to = (Handle)d->index << 8 | (u32)(w.parts[d->index] + 1) | 1UL << GPU_INSTANCE;
    return note(line);
}

int nvmlGpuInstanceDestroy(Handle handle) {
    INSTANCE(GPU_INSTANCE)
    char line[64];
    if (d->ready) return IN_USE;
    snprintf(line, sizeof line, "gone card=%d part=%d\n", d->index, d->part);
    return note(line);
}

int nvmlGpuInstanceGetComputeInstances(Handle handle, u32 id, Handle *to, u32 *count) {
    INSTANCE(GPU_INSTANCE)
    const Profile *p = profile_of(d->profile, 0);
    if (p == NULL || id > 4) return INVALID_ARGUMENT;
    *count = d->ready && COMPUTE_SLICES[id] == p->slices;
    if (*count) *to = (handle & ~(1UL << GPU_INSTANCE)) | 1UL << COMPUTE_INSTANCE;
    return SUCCESS;
}

int nvmlGpuInstanceCreateComputeInstance(Handle handle, u32 id, Handle *to) {
    INSTANCE(GPU_INSTANCE)
    const Profile *p = profile_of(d->profile, 0);
    char line[64];
    if (p == NULL || id > 4 || COMPUTE_SLICES[id] != p->slices) return NOT_SUPPORTED; /* parts of one: nobody asks */
    if (d->ready || !strcmp(d->fault, "nocompute")) return INSUFFICIENT;
    snprintf(line, sizeof line, "ready card=%d part=%d\n", d->index, d->part);
    *to = (handle & ~(1UL << GPU_INSTANCE)) | 1UL << COMPUTE_INSTANCE;
    return note(line);
}

int nvmlComputeInstanceDestroy(Handle handle) {
    INSTANCE(COMPUTE_INSTANCE)
    char line[64];
    for (int i = 0; i < w.processes; i++)
        if (w.running[i].card == d->index && w.running[i].part == d->part) return IN_USE;
    snprintf(line, sizeof line, "bare card=%d part=%d\n", d->index, d->part);
    return note(line);
}

int nvmlDeviceGetNvLinkState(Handle handle, u32 link, u32 *to) {
    handle = PLACE(handle); CARD_ONLY("nvlink")
    if ((int)link >= d->links) return d->links ? INVALID_ARGUMENT : NOT_SUPPORTED;
    *to = 1;
    return SUCCESS;
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(Handle handle, u32 link, Pci *to) {
    handle = PLACE(handle); CARD_ONLY("nvlink") (void)link;
    memset(to, 0, sizeof *to); snprintf(to->busId, sizeof to->busId, "%s", d->remote);
    return SUCCESS;
}

#ifndef OLD_DRIVER
int nvmlDeviceGetGpuInstanceProfileInfoV(Handle handle, u32 number, InstanceProfile *to) {
    handle = PLACE(handle); CARD_ONLY("instance")
    if (to->version != (sizeof *to | 2 << 24)) return VERSION_MISMATCH;
    for (int i = 0; i < PROFILE_COUNT; i++) {
        const Profile *p = &PROFILES[i];
        if (p->number != (int)number) continue;
        to->id = p->id; to->slices = p->slices; to->most = p->most; to->memoryMB = p->memoryMB;
        snprintf(to->name, sizeof to->name, "MIG %s", p->name);
        return SUCCESS;
    }
    return NOT_SUPPORTED;
}

int nvmlGpuInstanceGetComputeInstanceProfileInfoV(Handle handle, u32 number, u32 engine, ComputeProfile *to) {
    INSTANCE(GPU_INSTANCE)
    const Profile *p = profile_of(d->profile, 0);
    if (to->version != (sizeof *to | 2 << 24)) return VERSION_MISMATCH;
    if (engine != 0 || number > 4 || p == NULL || COMPUTE_SLICES[number] > p->slices) return NOT_SUPPORTED;
    to->id = number; to->slices = COMPUTE_SLICES[number]; to->most = 1;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(Handle handle, Memory2 *to) {
    handle = PLACE(handle); DEVICE("memory")
    if (to->version != (sizeof *to | 2 << 24)) return 25; /* argument version mismatch */
    to->total = d->memory_mib * MIB; to->reserved = d->reserved_mib * MIB; to->used = d->used_mib * MIB;
    to->free = to->total - to->reserved - to->used;
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(Handle handle, u64 *to) {
    handle = PLACE(handle); CARD_ONLY("energy")
    *to = garbage(d) ? SENTINEL : d->power_mw * w.clock_ms / 1000;
    return SUCCESS;
}

int nvmlDeviceGetNvLinkRemoteDeviceType(Handle handle, u32 link, u32 *to) {
    handle = PLACE(handle); CARD_ONLY("nvlink") (void)link; *to = !strcmp(d->remote, "switch") ? 2 : 0; return SUCCESS;
}

int nvmlDeviceGetRemappedRows(Handle handle, u32 *corrected, u32 *uncorrected, u32 *pending, u32 *failed_rows) {
    handle = PLACE(handle); CARD_ONLY("rows")
    *corrected = *uncorrected = 0; *pending = d->rows_pending; *failed_rows = d->rows_failed;
    return SUCCESS;
}

int nvmlDeviceGetAttributes_v2(Handle handle, Attributes *to) {
    handle = PLACE(handle); DEVICE("attributes")
    memset(to, 0, sizeof *to); to->slices = atoi(d->profile); to->memoryMB = d->memory_mib;
    return SUCCESS;
}
#endif

/* For the test that compares our structs with the bindings'. */
unsigned long stub_sizeof(const char *name) {
    const struct { const char *name; unsigned long size; } all[] = {
        {"c_nvmlMemory_t", sizeof(Memory)}, {"c_nvmlMemory_v2_t", sizeof(Memory2)},
        {"c_nvmlUtilization_t", sizeof(Utilization)}, {"c_nvmlProcessInfo_v3_t", sizeof(Process)},
        {"nvmlPciInfo_t", sizeof(Pci)}, {"c_nvmlDeviceAttributes", sizeof(Attributes)},
        {"c_nvmlGpuInstancePlacement_t", sizeof(Placement)}, {"c_nvmlGpuInstanceInfo_t", sizeof(InstanceInfo)},
        {"c_nvmlGpuInstanceProfileInfo_v2_t", sizeof(InstanceProfile)},
        {"c_nvmlComputeInstanceProfileInfo_v2_t", sizeof(ComputeProfile)},
    };
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(all[i].name, name)) return all[i].size;
    return 0;
}
